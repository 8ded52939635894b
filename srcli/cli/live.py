"""Telling a folder run: messages as they come, pictures, megapixels a second and time left."""

import sys
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from srcli.cli.console import error_lines, printable, product_path, say
from srcli.cli.units import count, duration
from srcli.jobs.report import PictureResult, Status

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from srcli.jobs.names import Job

_FIRST_UPDATE = 0.5
"""Seconds before anything moves: short runs need no bar, nor the time to import one."""

_LINE_EVERY = 10.0
"""Seconds between progress lines where stderr is not a terminal."""


class Screen(Protocol):
    """Where progress and messages are shown."""

    def line(self, text: str) -> None:
        """A message that stays."""

    def update(self, done: float, total: int, text: str) -> None:
        """Progress: `done` of `total`, and the same in words."""

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

    def line(self, text: str) -> None:
        """The message, above the bar."""
        if self._bar is None:
            say(text)
        else:
            from rich.text import Text

            self._bar.console.print(Text.from_ansi(text), soft_wrap=True)

    def update(self, done: float, total: int, text: str) -> None:
        """Move the bar; it appears after the first half second."""
        if self._bar is None and monotonic() - self._start < _FIRST_UPDATE:
            return
        bar = self._bar or self._open(total)
        bar.update(bar.task_ids[0], completed=done, description=text)

    def _open(self, total: int) -> "RichProgress":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        words = TextColumn("{task.description}", markup=False)
        self._bar = Progress(BarColumn(), words, console=Console(stderr=True), transient=True)
        self._bar.add_task("", total=total)
        self._bar.start()
        return self._bar

    def close(self) -> None:
        """The bar goes; the messages stay."""
        if self._bar is not None:
            self._bar.stop()


def screen(*, quiet: bool) -> Screen:
    """What fits the user's wish and terminal."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


class Teller:
    """Progress of a folder run for people (stderr), and the paths of its files for pipes (stdout).

    Args:
        screen: where it is shown.
        notes: whether to show what an output could not keep.
        paths: whether to print each written path on stdout.
    """

    def __init__(self, screen: Screen, *, notes: bool, paths: bool) -> None:
        self._screen, self._notes, self._paths = screen, notes, paths
        self._total = self._done = self._worked = 0
        self._lock = threading.Lock()
        self._parts: dict[Path, float] = {}  # of pictures at work, one a device
        self._megapixels = 0.0
        self._began = monotonic()

    def start(self, pictures: int) -> None:
        """A run of so many pictures begins."""
        self._total, self._began = pictures, monotonic()

    def tile(self, job: "Job", done: int, total: int) -> None:
        """Part of a picture is ready; called from the threads of the engines."""
        with self._lock:
            self._parts[job.source] = done / total if done < total else 0.99
            self._update()

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
