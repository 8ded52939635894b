"""Printing. stdout carries the product (paths, JSON, tables), stderr carries the talk.

A reader that leaves (`srcli upscale … | head`) stops no work: what is printed from then on is lost, the
files are not.
"""

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """The text on one line: control characters and undecodable bytes as escapes.

    File names may hold anything, newlines and terminal commands included.
    """
    return "".join(_escaped(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


_unprinted: list[str] = []  # why output was lost


@contextmanager
def unheard(stream: TextIO) -> Iterator[None]:
    """Printing in here goes on if the stream takes nothing any more; only its reader may leave untold."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _unprinted.append(error.strerror or str(error))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # takes also what Python flushes at exit
        os.close(nowhere)


def tell_unprinted() -> bool:
    """Say, once, whether output of this process was lost, and why."""
    reasons = ", ".join(dict.fromkeys(_unprinted))
    if reasons:
        show_error(f"Not all output could be printed ({reasons}).", "Free space, or send it elsewhere.")
    _unprinted.clear()
    return bool(reasons)


def say(text: str) -> None:
    """A line as it is, colours and all, on stderr."""
    with unheard(sys.stderr):
        typer.echo(text, err=True)


def talk(text: str) -> None:
    """One line for the user, on stderr."""
    say(printable(text))


def error_lines(message: str, hint: str = "") -> list[str]:
    """An error as it is shown: what happened and, on a line of its own, what to do."""
    lines = [f"{typer.style('error:', fg='red', bold=True)} {printable(message)}"]
    return [*lines, f"  {printable(hint)}"] if hint else lines


def show_error(message: str, hint: str = "") -> None:
    """An error and what to do about it, on stderr."""
    for line in error_lines(message, hint):
        say(line)


def product(text: str) -> None:
    """One line of product on stdout, written at once so that a reader in a pipe sees it."""
    with unheard(sys.stdout):
        typer.echo(text)
        sys.stdout.flush()


def product_path(path: os.PathLike[str]) -> None:
    """A path on stdout, byte for byte as the file system has it."""
    stream = typer.get_binary_stream("stdout")
    with unheard(sys.stdout):
        stream.write(os.fsencode(path) + b"\n")
        stream.flush()


def table(rows: list[list[str]]) -> list[str]:
    """Rows as aligned columns: the first row is the header; columns of numbers are right-aligned."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    return ["  ".join(map(_cell, row, widths, right)).rstrip() for row in rows]


def _cell(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text in ("", "–")


def command_line(arguments: list[str]) -> str:
    """The command that repeats this run; of absolute paths only the last part is kept."""
    from pathlib import Path
    from shlex import join

    return join(["srcli", *(Path(a).name if Path(a).is_absolute() else a for a in arguments)])
