"""How a pipeline tells what it is doing, without knowing who listens."""

from typing import Protocol

from srcli.jobs.names import Job
from srcli.jobs.report import PictureResult


class Progress(Protocol):
    """Listener of a folder run. `tile` is called by the engine's thread, the rest by the caller's."""

    def start(self, pictures: int) -> None:
        """A run of so many pictures begins."""

    def tile(self, job: Job, done: int, total: int) -> None:
        """`done` of the `total` tiles of this picture are ready."""

    def finished(self, result: PictureResult) -> None:
        """A picture ended, one way or another; called in the order of the inputs."""

    def stopping(self) -> None:
        """An interrupt came: the run ends as soon as the tiles at work are done."""


class NullProgress:
    """Listens to nothing."""

    def start(self, pictures: int) -> None:
        """Ignore it."""

    def tile(self, job: Job, done: int, total: int) -> None:
        """Ignore it."""

    def finished(self, result: PictureResult) -> None:
        """Ignore it."""

    def stopping(self) -> None:
        """Ignore it."""
