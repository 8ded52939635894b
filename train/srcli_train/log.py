"""What a training run reports: progress to a watcher, log.csv, TensorBoard events.

Messages for people go through `logging`.
"""

import csv
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from torch.utils.tensorboard.writer import SummaryWriter

from srcli_train.data import Pixels

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is.

    Attributes:
        update: minibatches done.
        progress: share of the run, 0-1.
        loss: mean since the last status.
        rate: factor on the learning rates.
        updates_per_second: since the last status.
        seconds_left: at this speed.
        psnr: of the last validation, in dB by scale.
    """

    update: int
    progress: float
    loss: float
    rate: float
    updates_per_second: float
    seconds_left: float
    psnr: dict[int, float]


class Watcher(Protocol):
    """Shows the progress of a run."""

    def status(self, status: Status) -> None:
        """Progress, every `log_every` updates."""

    def picture(self, update: int, image: Pixels) -> None:
        """A validation picture, (H, W, 3) uint8: LR, SR and HR side by side."""


class CsvLog:
    """log.csv of a run: appended to, and cut back to the checkpoint's update on resume.

    If it cannot be written, that is logged once, and training goes on.
    """

    def __init__(self, path: Path, scales: tuple[int, ...]) -> None:
        self._path, self._scales, self._failed = path, scales, False

    def begin(self, update: int) -> None:
        """Drop the rows after `update`, and what is no row; a run that starts at 0 starts a new file."""
        header = ["update", "seconds", "loss", "rate", *(f"psnr_x{s}" for s in self._scales)]
        kept = [row for row in self._old_rows() if int(row[0]) <= update] if update else []
        self._put("w", [header, *kept])

    def _old_rows(self) -> list[list[str]]:
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [row for row in csv.reader(lines) if row and row[0].isdecimal()]

    def write(self, status: Status, elapsed: float) -> None:
        """One row; PSNR columns are the latest validation's."""
        scores = [f"{status.psnr[s]:.3f}" if s in status.psnr else "" for s in self._scales]
        numbers = [str(status.update), f"{elapsed:.1f}", f"{status.loss:.4f}", f"{status.rate:.5f}"]
        self._put("a", [numbers + scores])

    def _put(self, mode: str, rows: Iterable[list[str]]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, newline="") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            if not self._failed:
                _log.warning(
                    "%s: the log cannot be written (%s); training goes on.", self._path, error.strerror
                )
            self._failed = True


class Board:
    """A watcher that writes TensorBoard events and passes everything on to another watcher.

    If they cannot be written, that is logged once, and training goes on.
    """

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        self._watcher, self._folder, self._failed = watcher, folder, False
        self._events = SummaryWriter(str(folder))

    def status(self, status: Status) -> None:
        """Loss, learning rate factor, speed and PSNR by scale."""
        scalars = {"loss": status.loss, "rate": status.rate, "updates_per_second": status.updates_per_second}
        scalars |= {f"psnr/x{scale}": value for scale, value in status.psnr.items()}
        for name, value in scalars.items():
            self._write(partial(self._events.add_scalar, name, value, status.update))
        self._watcher.status(status)

    def picture(self, update: int, image: Pixels) -> None:
        """LR, SR and HR side by side."""
        self._write(partial(self._events.add_image, "validation", image, update, dataformats="HWC"))
        self._watcher.picture(update, image)

    def _write(self, add: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            add()
            self._events.flush()
        except OSError as error:
            self._failed = True
            _log.warning("%s: no TensorBoard events can be written (%s).", self._folder, error.strerror)
