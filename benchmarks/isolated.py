"""A function called in a process of its own, with a limit of time and of memory."""

import multiprocessing
import os
import resource
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Worker"]


class Ended(Exception):  # noqa: N818
    """The process ended or was ended: "crash", or "hang" beyond the time limit."""


class Worker:
    """Calls `function` with one path after the other; a process that ends is replaced.

    Args:
        function: takes a path; its result can be pickled.
        seconds: for one call.
        memory: bytes of address space that one call may take on top of what the process has.
    """

    def __init__(self, function: Callable[[Path], Any], seconds: float, memory: int) -> None:
        self._function, self._seconds, self._memory = function, seconds, memory
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._function, self._memory), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it is ready

    def __call__(self, path: Path) -> tuple[Any, int]:
        """What the function returned, and the bytes by which the process grew meanwhile at most.

        Raises:
            Ended: the process crashed, or took longer than it may.
        """
        self._pipe.send(path)
        try:
            if self._pipe.poll(self._seconds):
                result, grown = self._pipe.recv()
                return result, grown
            how = "hang"
        except (EOFError, ConnectionError):
            how = "crash"
        self.close()
        how = f"{how} (signal {-(self._process.exitcode or 0)})" if how == "crash" else how
        self._start()
        raise Ended(how)

    def close(self) -> None:
        """End the process."""
        self._process.kill() if self._pipe_is_busy() else None
        self._process.join()
        self._pipe.close()

    def _pipe_is_busy(self) -> bool:
        return self._process.is_alive()


def _serve(pipe: Connection, function: Callable[[Path], Any], memory: int) -> None:
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # decoders write to it
    limited = False
    pipe.send(None)
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        _forget_peak()
        before = _status("VmRSS")
        result = function(path)
        pipe.send((result, _status("VmHWM") - before))
        if not limited:  # now everything is imported
            size = _status("VmSize") + memory
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
            limited = True


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    """Bytes, of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
