"""When a run saves, and how long it tries when the disk refuses."""

import time
from collections.abc import Callable
from pathlib import Path

from srcli.errors import OutputError

Save = Callable[[], Path]

AGAIN = 30.0
"""Seconds after which a save that failed is tried again."""
PATIENCE = 300.0
"""Seconds for which the save at the end of a run is tried: there will be no other."""


class Saving:
    """The clock of a run's saves. A disk that is full is said once, until a save has worked again.

    Args:
        minutes: between saves.
        note: told of a disk that refuses.
    """

    def __init__(self, minutes: float, note: Callable[[str], None]) -> None:
        self._seconds, self._note = 60 * minutes, note
        self._next = time.monotonic() + self._seconds
        self._told = False

    def due(self) -> bool:
        """Whether it is time for `attempt`."""
        return time.monotonic() > self._next

    def attempt(self, save: Save) -> None:
        """Save in the middle of a run; if the disk refuses, training goes on, and it is due again soon."""
        try:
            save()
        except OutputError as error:
            self._say(f"{error.message} Training goes on; saving is tried again every {AGAIN:g} seconds.")
            self._next = time.monotonic() + AGAIN
        else:
            self._next, self._told = time.monotonic() + self._seconds, False

    def insist(self, save: Save) -> Path:
        """Save at the end of a run.

        Returns:
            What `save` gives.

        Raises:
            OutputError: the disk has refused for `PATIENCE` seconds.
        """
        end, self._told = time.monotonic() + PATIENCE, False
        while True:
            try:
                return save()
            except OutputError as error:
                if time.monotonic() >= end:
                    raise
                self._say(f"{error.message} Make room: this is tried for {PATIENCE / 60:g} more minutes.")
                time.sleep(AGAIN)

    def _say(self, text: str) -> None:
        if not self._told:
            self._note(text)
        self._told = True
