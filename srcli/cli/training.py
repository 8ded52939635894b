"""Showing a training run: a bar on a terminal, lines elsewhere."""

from typing import TYPE_CHECKING

from srcli.cli.console import printable
from srcli.cli.live import Screen, screen
from srcli.cli.units import duration

if TYPE_CHECKING:
    from srcli_train.job import Pixels, Status


class TrainingWatcher:
    """Passes a run's news to the screen."""

    def __init__(self, shown: Screen) -> None:
        self._screen = shown
        self._validated: dict[int, float] = {}

    def note(self, text: str) -> None:
        """A line that stays."""
        self._screen.line(printable(text))

    def status(self, status: "Status") -> None:
        """Progress, and a line that stays whenever there are new PSNR figures."""
        scores = ", ".join(f"x{scale} {value:.2f} dB" for scale, value in status.psnr.items())
        text = (
            f"update {status.update}, loss {status.loss:.3f}, "
            f"{status.updates_per_second:.2f} updates/s, {duration(status.seconds_left)} left"
        )
        self._screen.update(status.progress, 1, f"{text}, validation {scores}" if scores else text)
        if status.psnr != self._validated:
            self._validated = dict(status.psnr)
            self._screen.line(f"update {status.update}: loss {status.loss:.3f}, validation {scores}")

    def picture(self, update: int, image: "Pixels") -> None:
        """Pictures are shown by TensorBoard."""

    def close(self) -> None:
        """Take the bar away."""
        self._screen.close()


class SilentWatcher:
    """For the second and later processes of a run."""

    def note(self, text: str) -> None:
        """Nothing."""

    def status(self, status: "Status") -> None:
        """Nothing."""

    def picture(self, update: int, image: "Pixels") -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def watcher() -> TrainingWatcher | SilentWatcher:
    """The watcher for this process: only the first of several speaks."""
    from srcli_train.peers import first_process

    return TrainingWatcher(screen(quiet=False)) if first_process() else SilentWatcher()
