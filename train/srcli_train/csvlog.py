"""The log of a run as CSV, for plots and for the record."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from srcli_train.job import Status


class CsvLog:
    """log.csv of a run: appended to, and cut back to the checkpoint's update on resume.

    A log that cannot be written must not cost a run: `note` is told, once, and training goes on.
    """

    def __init__(self, path: Path, scales: tuple[int, ...], note: Callable[[str], None]) -> None:
        self._path, self._scales, self._note = path, scales, note
        self._told = False

    def begin(self, update: int) -> None:
        """Drop the rows after `update`, and what is no row; a run that starts at 0 starts a new file."""
        header = ["update", "seconds", "loss", "rate", *(f"psnr_x{s}" for s in self._scales)]
        kept = [row for row in self._old() if int(row[0]) <= update] if update else []
        self._put("w", [header, *kept])

    def _old(self) -> list[list[str]]:
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
            if not self._told:
                self._note(f"{self._path}: the log cannot be written ({error.strerror}); training goes on.")
            self._told = True
