"""The terminal: stdout carries the product (paths, JSON, tables), stderr carries messages and progress.

A reader that leaves (`srcli upscale … | head`) stops no work: what is printed from then on is lost, the
files are not.
"""

import logging
import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Protocol, TextIO

import typer

from srcli.errors import MissingExtraError
from srcli.jobs.report import PictureResult, Status

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from srcli.io.remote import Location
    from srcli.jobs.cluster_nodes import NodeWork
    from srcli.jobs.outputs import Job

_PACKAGES = ("srcli", "srcli_train", "srcli_export")
_LONG_WORK = (
    "srcli.backends.tensorrt",
    "srcli.benchmark",
    "srcli.jobs.cluster",
    "srcli_train",
    "srcli_export",
)
"""Loggers of work that takes minutes: their messages are its progress."""
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_LINE_EVERY = 10.0
"""Seconds between progress lines where stderr is not a terminal."""
_NODES = 8
"""Nodes that have a line of their own."""
_FIRST_UPDATE = 0.5
"""Seconds before anything moves: short runs need no bar, nor the time to import one."""


def printable(text: str) -> str:
    """The text on one line: control characters and undecodable bytes as escapes.

    File names may hold anything, newlines and terminal commands included.
    """
    return "".join(_escaped(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


REPLACE = "srcli.replace"
"""Name of `replaced` among Python's handlers of what cannot be encoded."""
_PLAIN = str.maketrans({"×": "x", "–": "-", "—": "-", "…": "...", "’": "'", "“": '"', "”": '"'})


def replaced(error: UnicodeError) -> tuple[str, int]:
    """Stands in for characters that a stream's encoding has not (cp437, cp932, ASCII): others, or escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


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


@contextmanager
def product_stream() -> Iterator[BinaryIO]:
    """Stdout for bytes; what else is written there meanwhile, by libraries too, goes to stderr."""
    sys.stdout.flush()
    number = sys.stdout.fileno()
    kept = os.dup(number)
    os.dup2(sys.stderr.fileno(), number)
    stream = os.fdopen(os.dup(kept), "wb")
    try:
        yield stream
    finally:
        with suppress(OSError):  # its reader may be gone
            stream.close()
        os.dup2(kept, number)
        os.close(kept)


def product_path(path: "Location") -> None:
    """A path or URL on stdout, byte for byte as the file system has it."""
    stream = typer.get_binary_stream("stdout")
    with unheard(sys.stdout):
        stream.write(os.fsencode(str(path)) + b"\n")
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
    from shlex import join

    return join(["srcli", *(Path(a).name if Path(a).is_absolute() else a for a in arguments)])


def duration(seconds: float) -> str:
    """ "0.8 s", "42 s", "3:07" or "1:02:30"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: int, noun: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_BROUGHT_BY_EXTRAS = {
    "torch",
    "tensorboard",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "srcli_train",
    "srcli_export",
}


def missing_extra(error: ImportError, what: str, extra: str) -> ImportError | MissingExtraError:
    """What to raise for a failed import: the pip command, or the error itself if it is no extra's.

    Args:
        error: the failed import.
        what: what the user asked for, e.g. "Training".
        extra: the extra of the package that adds it, e.g. "train".
    """
    package = (error.name or "").partition(".")[0]
    return MissingExtraError(what, extra) if package in _BROUGHT_BY_EXTRAS else error


class Messages(logging.Handler):
    """Shows on stderr what srcli and its packages log for the user: level INFO and above.

    Attributes:
        quiet: show nothing but errors.
        kept: notes of this command, each once, for its report. What long work logs at INFO about its progress
            is shown as it is and not kept.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.quiet = False
        self.kept: list[str] = []
        self._line: Callable[[str], None] = say

    def __enter__(self) -> "Messages":
        for name in _PACKAGES:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        for name in _PACKAGES:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message, a note only once."""
        text = record.getMessage()
        if record.levelno < logging.WARNING and record.name.startswith(_LONG_WORK):
            self._show(text)
        elif text not in self.kept:
            self.kept.append(text)
            self.note(text)

    def note(self, text: str) -> None:
        """Show a text as a note; it is not kept."""
        self._show(f"note: {text}")

    def _show(self, text: str) -> None:
        if not self.quiet:
            self._line(printable(text))

    @contextmanager
    def above(self, line: Callable[[str], None]) -> Iterator[None]:
        """In here, messages go through `line`, as a screen with a moving bar takes them."""
        self._line = line
        try:
            yield
        finally:
            self._line = say


class Screen(Protocol):
    """Where progress and messages are shown."""

    def line(self, text: str) -> None:
        """A message that stays."""

    def update(self, done: float, total: int, text: str) -> None:
        """Progress: `done` of `total`, and the same in words."""

    def below(self, lines: Sequence[str]) -> None:
        """Lines below the progress, in place of those before."""

    def close(self) -> None:
        """Take away what moves."""


class Lines:
    """Plain lines, seldom: for logs and pipes."""

    def __init__(self) -> None:
        self._next = monotonic() + _LINE_EVERY

    def line(self, text: str) -> None:
        """The message, on stderr."""
        say(text)

    def update(self, done: float, total: int, text: str) -> None:
        """A line every ten seconds."""
        if monotonic() >= self._next:
            self._next = monotonic() + _LINE_EVERY
            say(text)

    def below(self, lines: Sequence[str]) -> None:
        """Nothing; what each node has done is logged."""

    def close(self) -> None:
        """Nothing moves."""


class Silent(Lines):
    """Messages only."""

    def update(self, done: float, total: int, text: str) -> None:
        """Nothing."""


class Bar:
    """A bar on a terminal, below the messages."""

    def __init__(self) -> None:
        self._start = monotonic()
        self._bar: RichProgress | None = None
        self._below: list[str] = []

    def line(self, text: str) -> None:
        """The message, above the bar."""
        if self._bar is None:
            say(text)
        else:
            from rich.text import Text

            with unheard(sys.stderr):
                self._bar.console.print(Text.from_ansi(text), soft_wrap=True)

    def update(self, done: float, total: int, text: str) -> None:
        """Move the bar; it appears after the first half second."""
        if self._bar is None and monotonic() - self._start < _FIRST_UPDATE:
            return
        with unheard(sys.stderr):
            bar = self._bar or self._open(total)
            bar.update(bar.task_ids[0], completed=done, description=text)

    def below(self, lines: Sequence[str]) -> None:
        """The lines below the bar, where there is one."""
        self._below = [printable(line) for line in lines]

    def _open(self, total: int) -> "RichProgress":
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        screen = self

        class BarWithLines(Progress):
            def get_renderables(self) -> Iterable[RenderableType]:
                yield from super().get_renderables()
                yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in screen._below)

        words = TextColumn("{task.description}", markup=False)
        self._bar = BarWithLines(BarColumn(), words, console=Console(stderr=True), transient=True)
        self._bar.add_task("", total=total)
        self._bar.start()
        return self._bar

    def close(self) -> None:
        """The bar goes; the messages stay."""
        if self._bar is not None:
            with unheard(sys.stderr):
                self._bar.stop()


def screen(*, quiet: bool) -> Screen:
    """What fits the user's wish and terminal."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


class FolderProgress:
    """Progress of a folder run for people (stderr), and the paths of its files for pipes (stdout).

    Args:
        screen: where it is shown.
        total: pictures and films in all.
        notes: whether to show what an output could not keep.
        paths: whether to print each written path on stdout.
    """

    def __init__(self, screen: Screen, total: int, *, notes: bool, paths: bool) -> None:
        self._screen, self._notes, self._paths = screen, notes, paths
        self._total, self._done, self._worked = total, 0, 0
        self._lock = threading.Lock()
        self._parts: dict[Location, float] = {}  # of pictures at work, one a device
        self._megapixels = 0.0
        self._began = monotonic()
        self._film_began: dict[Location, tuple[float, int]] = {}  # when, and after how many frames

    def start(self) -> None:
        """The run begins."""
        self._began = monotonic()

    def tile(self, job: "Job", done: int, total: int) -> None:
        """Part of a picture is ready; called from the threads of the engines."""
        with self._lock:
            self._parts[job.source] = done / total if done < total else 0.99
            self._update()

    def frames(self, job: "Job", done: int, total: int, enlarged: int) -> None:
        """Frames of a film are ready."""
        now = monotonic()
        began, before = self._film_began.setdefault(job.source, (now, enlarged))
        parts = [f"{job.source.name}: {done}/{count(total, 'frame')}"]
        if enlarged > before and now > began:
            rate = (enlarged - before) / (now - began)
            parts += [f"{rate:.2f} frames/s", f"{duration((total - done) / rate)} left"]
        with self._lock:
            self._screen.update(self._done + done / total, self._total, ", ".join(parts))

    def nodes(self, work: "Sequence[NodeWork]", now: float) -> None:
        """What each node of a cluster has done: a line each, of many nodes one line for the rest."""
        ordered = sorted(work, key=lambda one: str(one.node))
        lines = [_node_line(one.node.host, [one], now) for one in ordered[:_NODES]]
        if rest := ordered[_NODES:]:
            lines.append(_node_line(f"{count(len(rest), 'more node')}", rest, now))
        with self._lock:
            self._screen.below(lines)

    def finished(self, result: PictureResult) -> None:
        """A picture ended: show what is worth showing."""
        with self._lock:
            self._done += 1
            self._worked += result.status is Status.WRITTEN
            self._megapixels += result.megapixels
            self._parts.pop(result.input, None)
        for text in self._messages(result):
            self._screen.line(text)
        if self._paths and result.status is Status.WRITTEN and result.output is not None:
            product_path(result.output)
        with self._lock:
            self._update()

    def stopping(self) -> None:
        """An interrupt came: say that it was heard."""
        if self._notes:
            self._screen.line("Stopping after what is at work.")

    def _messages(self, result: PictureResult) -> list[str]:
        if result.status is Status.FAILED:
            return error_lines(result.error, result.hint)
        if not self._notes:
            return []
        return [f"note: {printable(f'{result.input}: {note}')}" for note in result.notes]

    def _update(self) -> None:
        elapsed = monotonic() - self._began
        part = sum(self._parts.values())
        worked = self._worked + part
        left = elapsed / worked * (self._total - self._done - part) if worked else None
        parts = [f"{self._done}/{count(self._total, 'picture')}"]
        if self._megapixels:
            parts.append(f"{self._megapixels / elapsed:.2f} MP/s")
        if left is not None:
            parts.append(f"{duration(max(left, 0.0))} left")
        self._screen.update(self._done + part, self._total, ", ".join(parts))


def _node_line(name: str, work: "Sequence[NodeWork]", now: float) -> str:
    """ "gpu-7: 2 processes, 120 done, 3.41 MP/s"."""
    processes = sum(one.processes for one in work)
    parts = [f"{processes} process{'es' * (processes != 1)}", f"{sum(one.done for one in work)} done"]
    rate = sum(one.megapixels / (now - one.since) for one in work if now > one.since)
    return f"{name}: {', '.join([*parts, *([f'{rate:.2f} MP/s'] if rate else [])])}"
