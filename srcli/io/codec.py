"""Interfaces of the format modules, and all calls of OpenCV's codecs."""

import errno
import mmap
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from srcli.errors import InputError, shown
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch, sweep

Pixels = NDArray[Any]
"""(H, W), (H, W, 2), (H, W, 3) or (H, W, 4); uint8 or uint16."""

Data = mmap.mmap
"""A whole file as private, writeable memory; changes do not reach the file."""


class DamagedError(Exception):
    """The file is cut off or damaged; the text says which, and the hint what to do."""

    hint = "Try a fresh copy."

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint or self.hint


class UnsupportedError(DamagedError):
    """The file is of a kind that cannot be decoded; the text says which."""

    hint = "Store it as another kind first: 8 or 16 bits a channel, RGB or gray."


class TooLargeError(DamagedError):
    """More pixels than can be decoded."""

    hint = "Cut it into parts, or store it smaller."


MAX_SAMPLES = 2**31 - 1
"""Most samples (pixels times channels) that OpenCV decodes into a given array."""

INCOMPLETE = "the end of the file could not be written"


class EncodeError(Exception):
    """The encoder refused; the text says why."""


@contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Errors of the file system and the decoders as InputError."""
    try:
        yield
    except IsADirectoryError as error:
        raise InputError(f"{shown(path)} is a folder, not a picture.", "Name the files in it.") from error
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)} does not exist.", "Check the spelling of the path.") from error
    except PermissionError as error:
        raise InputError(f"{shown(path)} may not be read.", "Check the permissions of the file.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)} cannot be read ({error}).") from error
    except MemoryError as error:
        raise InputError(f"{shown(path)} does not fit into memory.", "Use a smaller picture.") from error
    except DamagedError as error:
        raise InputError(f"{shown(path)} cannot be used: {error}.", error.hint) from error
    except (struct.error, IndexError, OverflowError) as error:  # places and lengths that cannot be
        text = f"{shown(path)} cannot be used: its structure is damaged."
        raise InputError(text, DamagedError.hint) from error


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
        coded_channels: 1 to 4: what the decoder gives; None: as `channels`.
        buffer: bytes that the decoder holds beside the pixels because of how the file is coded.
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
    coded_channels: int | None = None
    buffer: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the decoded picture."""
        return np.dtype(np.uint16 if self.bit_depth == 16 else np.uint8)

    @property
    def coded_shape(self) -> tuple[int, ...]:
        """Of the array that OpenCV's decoder gives."""
        channels = self.coded_channels or self.channels
        return (self.height, self.width) if channels == 1 else (self.height, self.width, channels)


class Reader(Protocol):
    """A module that reads one format. All functions raise DamagedError."""

    def layout(self, data: Data) -> Layout:
        """Read the header only."""

    def check(self, data: Data) -> str:
        """Refuse a file that is cut off or damaged where the decoder would not notice.

        Returns:
            What makes one doubt the picture, though it can be decoded; "" if nothing does.
        """

    def decode(self, data: Data, layout: Layout, scratch: Scratch) -> Pixels:
        """First frame in OpenCV's channel order, orientation not applied.

        It may write to `data`, which is of no use afterwards.
        """

    def metadata(self, data: Data) -> Metadata:
        """What the file carries; parts that cannot be read are left out."""

    def orientation(self, data: Data, metadata: Metadata) -> int:
        """How the stored pixels are to be turned, as an EXIF value 1 to 8."""


class Writer(Protocol):
    """A module that writes one format."""

    def encode(self, file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
        """Fill a new, empty file, whose suffix names the format.

        Args:
            file: an unfinished one, see `srcli.io.storage.unfinished`.
            pixels: BGR(A), gray or gray + alpha, contiguous.
            quality: 0-100; None: the format's default.
            metadata: as the format can hold it.

        Raises:
            EncodeError: the encoder refused.
            OSError: the disk is full, or the file cannot be written.
        """


def by_rows(convert: Callable[[Pixels], Pixels], pixels: Pixels, out: Pixels) -> Pixels:
    """`out` filled with convert(rows), a few rows at a time, so that wide intermediates stay small."""
    step = max(1, (1 << 20) // max(1, pixels[:1].size))
    for top in range(0, pixels.shape[0], step):
        out[top : top + step] = convert(pixels[top : top + step])
    return out


def widen(samples: Pixels, bits: int) -> Pixels:
    """Samples of 9 to 15 bits spread over the full 16 in place, rounded: 2**bits - 1 becomes 65535."""
    top = (1 << bits) - 1
    return by_rows(lambda rows: (rows.astype(np.uint32) * 65535 + top // 2) // top, samples, samples)


def narrow(rows: Pixels, bits: int) -> Pixels:
    """16-bit samples rounded to `bits` bits, the inverse of `widen`."""
    top = (1 << bits) - 1
    return ((rows.astype(np.uint32) * top + 32767) // 65535).astype(np.uint16)


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


def decode(
    data: Data | memoryview | bytes, shape: tuple[int, ...], dtype: DTypeLike, scratch: Scratch
) -> Pixels:
    """The first picture as stored: no orientation, no change of depth; BGR order.

    Args:
        data: a whole file.
        shape, dtype: of the pixels, by the file's header. Where they exceed the scratch limit, they are
            decoded into a scratch file, by way of a copy of the file beside it: OpenCV decodes into a given
            array only from a named file.
        scratch: where the pixels go.
    """
    try:
        with _quiet():
            if prod(shape) * np.dtype(dtype).itemsize <= scratch.limit or not _opens(scratch.where):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            else:
                pixels = _decoded_into(data, scratch.empty(shape, dtype), scratch.where)
    except cv2.error as error:
        raise DamagedError(f"the decoder gave up: {_reason(error)}") from error
    if pixels is None:
        raise DamagedError("its picture data cannot be decoded")
    return pixels


def _decoded_into(data: Data | memoryview | bytes, pixels: Pixels, folder: Path) -> Pixels | None:
    """Decoded in the memory of `pixels`, unless the header is wrong about the shape."""
    sweep(folder)  # copies of killed processes
    with NamedTemporaryFile(dir=folder, prefix=".srcli-", suffix=".part", delete=False) as copy:
        path = Path(copy.name)
        try:
            copy.write(data)
            copy.close()
            found: Pixels | None = cv2.imread(os.fsencode(path), pixels, cv2.IMREAD_UNCHANGED)  # type: ignore[call-overload]
            return found
        finally:
            copy.close()
            path.unlink()


def encode(
    file: Path, pixels: Pixels, parameters: Sequence[int] = (), metadata: Metadata | None = None
) -> None:
    """Encode into a file, in the format that its suffix names.

    Args:
        file: as of `Writer.encode`.
        pixels: in OpenCV's channel order.
        parameters: alternate key and value of cv2.IMWRITE_*.
        metadata: EXIF, ICC and XMP to write with it.

    Raises:
        EncodeError: the encoder refused.
        OSError: the disk is full.
    """
    kinds, blobs = _for_opencv(metadata) if metadata else ([], [])
    try:
        with _quiet():
            if _opens(file):
                name = os.fsencode(file)
                done = cv2.imwriteWithMetadata(name, pixels, kinds, blobs, list(parameters))  # type: ignore[call-overload]
            else:
                done, data = cv2.imencodeWithMetadata(file.suffix, pixels, kinds, blobs, list(parameters))
                file.write_bytes(np.asarray(data, np.uint8).data if done else b"")
    except cv2.error as error:
        raise EncodeError(_reason(error)) from error
    if not done:
        if shutil.disk_usage(file.parent).free < pixels.nbytes:  # OpenCV passes no error numbers on
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise EncodeError("the encoder refused the picture")


def _opens(path: Path) -> bool:
    """Whether OpenCV can open a file of that name: on Windows it knows the characters of one code page."""
    return os.name != "nt" or str(path).isascii()


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
