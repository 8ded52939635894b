"""TensorBoard: scalars and a validation picture, beside whatever else watches the run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from srcli_train.job import Pixels, Status, Watcher


class Board:
    """A watcher that writes TensorBoard events and passes everything on to another watcher.

    Events that cannot be written must not cost a run: it is said, once, and training goes on without.
    """

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        self._watcher, self._folder, self._broken = watcher, folder, False
        self._events = SummaryWriter(str(folder))

    def note(self, text: str) -> None:
        """Passed on."""
        self._watcher.note(text)

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
        if self._broken:
            return
        try:
            add()
            self._events.flush()
        except OSError as error:
            self._broken = True
            self.note(f"{self._folder}: no TensorBoard events can be written ({error.strerror}).")
