"""What can go wrong, said for people: every error carries its exit code and what to do next."""

from enum import IntEnum


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
