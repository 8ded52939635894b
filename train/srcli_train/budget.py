"""The time that a run may take, which it keeps when it is resumed."""

from collections.abc import Callable


def agreed_minutes(asked: float | None, before: float | None, note: Callable[[str], None]) -> float:
    """The budget of a resumed run, in minutes of training in all; 0: none.

    Args:
        asked: what is asked for now; None: nothing is, and the run keeps what it had.
        before: what the checkpoint holds; None: it was written before checkpoints held it.
        note: told of a budget that changes, and of one that cannot be known.
    """
    if asked is None:
        if before is None:
            note("The checkpoint does not say whether this run had a time budget; it goes on without one.")
        return before or 0.0
    if before is not None and asked != before:
        note(f"The time budget is now {_told(asked)}; before it was {_told(before)}.")
    return asked


def _told(minutes: float) -> str:
    return f"{minutes:g} minutes" if minutes else "none"
