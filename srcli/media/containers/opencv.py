"""The only place that calls OpenCV's codecs: quiet, and with errors in our own words."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from srcli.media.containers.base import DamagedError, EncodeError, Pixels
from srcli.media.metadata import Metadata

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
