"""Numbers as people write and read them."""

import os
import re

from srcli.errors import UsageError

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(text: str) -> int:
    """ "512M", "1.5G", "2GiB" or plain bytes to a number of bytes (powers of 1024).

    Raises:
        UsageError: it is not such a number, or less than one byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** _POWERS[match[2].upper()]) if match else 0
    if size < 1:
        raise UsageError(f"--memory {text!r} is not an amount of memory.", "Write it like 512M or 2G.")
    return size


def default_memory() -> int:
    """2 GiB, or a quarter of the machine's memory where that is less."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 << 30
    return min(2 << 30, installed // 4)


def duration(seconds: float) -> str:
    """ "0.8 s", "42 s", "3:07" or "1:02:30"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: int, noun: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
