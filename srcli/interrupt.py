"""Ctrl-C, or a request to terminate, at a point of our choice and never within a step."""

import signal
from time import monotonic
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 3.0
"""Seconds in which signals count as one: a launcher passes on what the terminal has sent already."""


class Interrupt:
    """While entered, the first signal is only remembered; another, seconds later, interrupts at once.

    An exception that a signal raises arrives anywhere, in the locks of a future or a screen too, and
    leaves them taken; so loops ask for `wanted` where nothing is half done.

    Only the main thread may receive signals; elsewhere nothing changes. Signals that the process was
    told to ignore, as a shell does for what it starts in the background, stay ignored.

    Attributes:
        wanted: whether there was one since entering.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._first = 0.0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "Interrupt":
        self.wanted = False
        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        try:
            self._before = {number: signal.signal(number, self._remember) for number in heard}
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.wanted:
            self.wanted, self._first = True, monotonic()
        elif monotonic() - self._first > _SAME:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
