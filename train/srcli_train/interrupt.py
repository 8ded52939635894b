"""Ctrl-C between two updates, never within one."""

import signal
from types import FrameType, TracebackType


class Interrupt:
    """While entered, the first Ctrl-C is only remembered; a second one interrupts at once.

    Only the main thread may receive signals; elsewhere nothing changes.
    """

    def __init__(self) -> None:
        self.wanted = False

    def __enter__(self) -> "Interrupt":
        try:
            self._before = signal.signal(signal.SIGINT, self._remember)
        except ValueError:  # not the main thread
            self._before = None
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """To be called where stopping is safe.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since entering.
        """
        if self.wanted:
            raise KeyboardInterrupt
