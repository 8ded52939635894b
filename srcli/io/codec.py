"""What every picture format offers, and the only place that calls OpenCV's codecs."""

import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.io.metadata import Metadata

Pixels = NDArray[Any]
"""(H, W), (H, W, 2), (H, W, 3) or (H, W, 4); uint8 or uint16."""

Data = bytes | mmap.mmap
"""A whole file, in memory or mapped."""

Parts = tuple[bytes | memoryview, ...]
"""A file in pieces, in order: joined, it would take its size in memory once more."""


class DamagedError(Exception):
    """The file is cut off or damaged; the text says which."""

    hint = "Try a fresh copy."


class UnsupportedError(DamagedError):
    """The file may well be whole, but it is of a kind that cannot be decoded; the text says which."""

    hint = "Store it as another kind first: 8 or 16 bits a channel, RGB or gray."


class EncodeError(Exception):
    """The encoder refused; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file's header declares, before any orientation is applied.

    Attributes:
        height, width: stored size in pixels.
        channels: 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA: as the decoded picture will have.
        bit_depth: 8 or 16: depth of the decoded picture.
        frames: pictures in the file; only the first is ever read.
        cmyk: stored as CMYK and converted to RGB by the decoder.
        colour: a description of the colours that is not kept, in a few words; "" if there is none.
        unkept: names of metadata in the file that is not kept.
        lossless: stored without loss, in a format that may also be lossy.
    """

    height: int
    width: int
    channels: int
    bit_depth: int = 8
    frames: int = 1
    cmyk: bool = False
    colour: str = ""
    unkept: tuple[str, ...] = ()
    lossless: bool = False


class Reader(Protocol):
    """A module that reads one format. All functions raise DamagedError."""

    def layout(self, data: Data) -> Layout:
        """Read the header only."""

    def check(self, data: Data) -> str:
        """Refuse a file that is cut off or damaged where the decoder would not notice.

        Returns:
            What makes one doubt the picture, though it can be decoded; "" if nothing does.
        """

    def decode(self, data: bytes) -> Pixels:
        """First frame in OpenCV's channel order, orientation not applied."""

    def metadata(self, data: Data) -> Metadata:
        """What the file carries; parts that cannot be read are left out."""

    def orientation(self, data: Data, metadata: Metadata) -> int:
        """How the stored pixels are to be turned, as an EXIF value 1 to 8."""


class Writer(Protocol):
    """A module that writes one format."""

    def encode(self, pixels: Pixels, quality: int | None, metadata: Metadata) -> Parts:
        """A whole file from BGR(A), gray or gray + alpha pixels. Raises EncodeError."""


def by_rows(convert: Callable[[Pixels], Pixels], pixels: Pixels, out: Pixels) -> Pixels:
    """`out` filled with convert(rows), a few rows at a time, so that wide intermediates stay small."""
    step = max(1, (1 << 20) // max(1, pixels[:1].size))
    for top in range(0, pixels.shape[0], step):
        out[top : top + step] = convert(pixels[top : top + step])
    return out


def widen(samples: Pixels, bits: int) -> Pixels:
    """Samples of 9 to 15 bits spread over the full 16, rounded: 2**bits - 1 becomes 65535."""
    top = (1 << bits) - 1
    return by_rows(lambda rows: (rows.astype(np.uint32) * 65535 + top // 2) // top, samples, samples.copy())


def narrow(samples: Pixels, bits: int) -> Pixels:
    """16-bit samples rounded to `bits` bits, the inverse of `widen`."""
    top = (1 << bits) - 1
    return by_rows(lambda rows: (rows.astype(np.uint32) * top + 32767) // 65535, samples, samples.copy())


_lock = threading.Lock()
_quiet_calls = 0
_saved_level = 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute OpenCV's log while any thread is inside; the caller's log level comes back afterwards."""
    global _quiet_calls, _saved_level
    with _lock:
        if _quiet_calls == 0:
            _saved_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _quiet_calls += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_calls -= 1
            if _quiet_calls == 0:
                cv2.utils.logging.setLogLevel(_saved_level)


def decode(data: bytes | bytearray) -> Pixels:
    """The first picture as stored: no orientation, no change of depth; BGR order."""
    try:
        with _quiet():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DamagedError(f"the decoder gave up: {_reason(error)}") from error
    if pixels is None:
        raise DamagedError("its picture data cannot be decoded")
    return pixels


def encode(
    suffix: str, pixels: Pixels, parameters: Sequence[int] = (), metadata: Metadata | None = None
) -> memoryview:
    """A whole file in memory; parameters alternate key and value of cv2.IMWRITE_*."""
    kinds, blobs = _for_opencv(metadata) if metadata else ([], [])
    try:
        with _quiet():
            done, data = cv2.imencodeWithMetadata(suffix, pixels, kinds, blobs, list(parameters))
    except cv2.error as error:
        raise EncodeError(_reason(error)) from error
    if not done or len(data) == 0:
        raise EncodeError("the encoder refused the picture")
    return np.asarray(data, np.uint8).reshape(-1).data


def _for_opencv(metadata: Metadata) -> tuple[list[int], list[Pixels]]:
    parts = (
        (cv2.IMAGE_METADATA_EXIF, metadata.exif),
        (cv2.IMAGE_METADATA_ICCP, metadata.icc),
        (cv2.IMAGE_METADATA_XMP, metadata.xmp),
    )
    present = [(kind, np.frombuffer(blob, np.uint8)) for kind, blob in parts if blob]
    return [kind for kind, _ in present], [blob for _, blob in present]


def _reason(error: cv2.error) -> str:
    """The sentence inside OpenCV's message, without paths and line numbers."""
    text = str(getattr(error, "err", "") or error)
    return " ".join(text.split())[:120]
