"""Let scripts parse their options and leave before they work.

Reads a JSON list of command lines (a script's path and its options) from stdin, writes a JSON list to stdout:
for each the error, or "".
"""

import argparse
import contextlib
import io
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NEVER = "it parsed no options"


def parsed(script: str, options: Sequence[str]) -> str:
    """Why a script refuses its options; "" if it takes them."""
    sys.argv = [script, *options]
    sys.path[0] = str(Path(script).parent)
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            return told.getvalue() if end.code else ""
    return _NEVER


def main() -> None:
    """Parse all that come in."""
    real = argparse.ArgumentParser.parse_args

    def parse_and_leave(parser: argparse.ArgumentParser, *arguments: Any) -> None:
        real(parser, *arguments)
        sys.exit(0)

    argparse.ArgumentParser.parse_args = parse_and_leave  # type: ignore[method-assign,assignment]
    lines = json.load(sys.stdin)
    json.dump([parsed(script, options) for script, *options in lines], sys.stdout)


if __name__ == "__main__":
    main()
