"""The log of a run as CSV, for plots and for the record."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli_train.loop import Status


class CsvLog:
    """log.csv of a run: appended to, and cut back to the checkpoint's update on resume."""

    def __init__(self, path: Path, scales: tuple[int, ...], update: int) -> None:
        self._path, self._scales = path, scales
        header = ["update", "seconds", "loss", "rate", *(f"psnr_x{s}" for s in scales)]
        old = list(csv.reader(path.open(newline=""))) if update and path.is_file() else [header]
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = old[:1] + [row for row in old[1:] if int(row[0]) <= update]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(kept)

    def write(self, status: "Status", elapsed: float) -> None:
        """One row; PSNR columns are the latest validation's."""
        scores = [f"{status.psnr[s]:.3f}" if s in status.psnr else "" for s in self._scales]
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow(
                [status.update, f"{elapsed:.1f}", f"{status.loss:.4f}", f"{status.rate:.5f}", *scores]
            )
