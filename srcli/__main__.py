"""Where the command `srcli` (and `python -m srcli`) begins: Ctrl-C is answered while Python still imports."""

import sys


def main() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        from srcli.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
