"""What can go wrong, said for people, with exit code and advice; and Ctrl-C at a point of our choice."""

import signal
from enum import IntEnum
from time import monotonic
from types import FrameType, TracebackType


class ExitCode(IntEnum):
    """Exit codes of every srcli command."""

    OK = 0
    FAILED = 1
    """Something failed: at least one input, or the whole run."""
    USAGE = 2
    """The command could not start as it was asked for."""
    INTERRUPTED = 130


class SrcliError(Exception):
    """Base of all errors srcli raises on purpose.

    Args:
        message: what happened and to which file, one sentence.
        hint: what to do now; empty if there is nothing to add.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class UsageError(SrcliError):
    """The request contradicts itself or names something that does not exist."""

    exit_code = ExitCode.USAGE


class ModelNotFoundError(UsageError):
    """No model of that name, or the model has no network for that scale."""


class BackendUnavailableError(UsageError):
    """The backend, device or precision asked for cannot be had here."""


class MissingExtraError(BackendUnavailableError):
    """A package is missing that an optional extra brings.

    Args:
        what: what was asked for, e.g. "The openvino backend".
        extra: the extra of pyproject.toml that adds it, e.g. "cpu".
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed.", f'Add it with: pip install "srcli[{extra}]"')
        self._about = what, extra

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), self._about  # other processes are told what went wrong in one


class InputError(SrcliError):
    """A file cannot be read as what it should be."""


class OutputError(SrcliError):
    """A result cannot be written where it should go."""


class ModelFileError(SrcliError):
    """A model file is damaged, or not one that srcli can run."""


class InferenceError(SrcliError):
    """The network gave no usable output (non-finite values, out of memory)."""


class TrainingError(SrcliError):
    """Training cannot start or go on: data, checkpoint or numbers are bad."""


class ExportError(SrcliError):
    """An exported network does not match its checkpoint."""


def shown(path: object) -> str:
    """A path or URL for messages: as it is, or quoted and escaped if it holds line breaks and the like."""
    text = str(path)
    return text if text.isprintable() else repr(text)


_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""A terminal that is closed sends the last one; Windows has none."""
_SAME = 3.0
"""Seconds in which signals count as one: a launcher passes on what the terminal has sent already."""


class Interrupt:
    """While entered, the first signal is only remembered; another, seconds later, interrupts at once.

    An exception that a signal raises arrives anywhere, in the locks of a future or a screen too, and
    leaves them taken; so loops ask for `wanted` where nothing is half done.

    Only the main thread may receive signals; elsewhere nothing changes. Signals that the process was
    told to ignore, as a shell does for what it starts in the background, stay ignored.

    Attributes:
        wanted: whether there was one since entering.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._first = 0.0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "Interrupt":
        self.wanted = False
        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        try:
            self._before = {number: signal.signal(number, self._remember) for number in heard}
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.wanted:
            self.wanted, self._first = True, monotonic()
        elif monotonic() - self._first > _SAME:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
