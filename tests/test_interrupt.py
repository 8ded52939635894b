"""Signals that are remembered, not raised.

None is sent here: its frame may not fit on the stack that faulthandler gives them.
"""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from srcli.errors import Interrupt


@pytest.fixture(autouse=True)
def as_a_terminal_starts_it() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def arrives(number: signal.Signals) -> None:
    handler: Any = signal.getsignal(number)
    handler(number, None)


def test_one_press_is_one_even_if_it_arrives_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal and a launcher both tell a process; only a later press means: at once."""
    clock = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr("srcli.errors.monotonic", lambda: next(clock))
    with Interrupt() as interrupt:
        assert not interrupt.wanted
        arrives(signal.SIGTERM)
        assert interrupt.wanted
        arrives(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            arrives(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has none")
def test_a_terminal_that_is_closed_ends_a_run_and_nohup_keeps_it() -> None:
    with Interrupt() as interrupt:
        arrives(signal.SIGHUP)
        assert interrupt.wanted
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupt():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_what_a_shell_starts_in_the_background_goes_on() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        arrives(signal.SIGTERM)
        assert interrupt.wanted
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_only_the_main_thread_receives_signals() -> None:
    seen = []

    def elsewhere() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.wanted)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
