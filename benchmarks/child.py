"""Run a command in a process of its own and print what it took as JSON.

    python benchmarks/child.py COMMAND ARGUMENTS...

A process inherits its parent's peak memory until it has loaded its own program, so the parent of a
measured command has to be small: this file imports nothing but what Python has loaded anyway.
"""

import os
import sys
import time


def main(command: list[str]) -> int:
    """Run the command with its output thrown away; print seconds, peak bytes and exit code."""
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    begin = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    print(f'{{"seconds": {seconds}, "cpu": {cpu}, "peak": {usage.ru_maxrss * 1024}, "code": {code}}}')
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
