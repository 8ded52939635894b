"""TensorBoard: scalars and a validation picture, beside whatever else watches the run."""

from pathlib import Path

from srcli_train.loop import Pixels, Status, Watcher


class Board:
    """A watcher that writes TensorBoard events and passes everything on to another watcher."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._watcher = watcher
        self._events = SummaryWriter(str(folder))

    def note(self, text: str) -> None:
        """Passed on."""
        self._watcher.note(text)

    def status(self, status: Status) -> None:
        """Loss, learning rate factor, speed and PSNR by scale."""
        scalars = {"loss": status.loss, "rate": status.rate, "updates_per_second": status.updates_per_second}
        scalars |= {f"psnr/x{scale}": value for scale, value in status.psnr.items()}
        for name, value in scalars.items():
            self._events.add_scalar(name, value, status.update)
        self._events.flush()
        self._watcher.status(status)

    def picture(self, update: int, image: Pixels) -> None:
        """LR, SR and HR side by side."""
        self._events.add_image("validation", image, update, dataformats="HWC")
        self._events.flush()
        self._watcher.picture(update, image)
