"""What Pillow decodes rather than OpenCV: GIF, bitmaps of OS/2, palettes, few bits, CMYK, Lab, gray AVIF.

Nothing here is imported before such a picture is read.
"""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from srcli.io.codec import DamagedError, Data, Layout, Pixels, TooLargeError, UnsupportedError
from srcli.io.storage import Scratch

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4, "CMYK": 3}
_BAND = 1 << 20
"""Pixels converted at a time."""
PIXEL = 5
"""Bytes a pixel at most: Pillow's own, and a band."""
_MOST_PIXELS = 1 << 30
"""Of a TIFF: what srcli takes. A GIF has Pillow's own limit, since opening it may already take memory."""
ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)
"""What Pillow raises for files that are no good."""
_lock = threading.Lock()  # filters of warnings and Pillow's limit are the whole process's


@contextmanager
def opened(kind: str, data: Data | bytes) -> "Iterator[Image]":
    """The picture with its header read; pixels are decoded where they are asked for, within the block.

    Args:
        kind: "Bmp", "Gif", "Jpeg", "Tiff" or "Avif", after Pillow's plug-in.
        data: the whole file.

    Raises:
        UnsupportedError: Pillow does not know this kind.
        DamagedError: the file is cut off or damaged.
        TooLargeError: more pixels than Pillow takes.
    """
    from PIL import Image

    plugin = getattr(import_module(f"PIL.{kind}ImagePlugin"), f"{kind}ImageFile")
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    file.seek(0)
    with _lock, warnings.catch_warnings(), _limit(Image, kind):
        warnings.simplefilter("ignore")
        try:
            image = plugin(file)
        except Image.DecompressionBombError as error:
            raise TooLargeError("it is too large for a file of its kind") from error
        except ERRORS as error:
            if "truncated" in str(error).lower() or isinstance(error, RuntimeError):
                raise DamagedError(f"its header is cut off or damaged ({error})") from error
            raise UnsupportedError(f"this kind of {kind.upper()} is not supported ({error})") from error
        try:
            yield image
        except Image.DecompressionBombError as error:
            raise TooLargeError("it is too large for a file of its kind") from error
        except ERRORS as error:
            raise DamagedError(f"its picture data cannot be decoded ({error})") from error


@contextmanager
def _limit(module: Any, kind: str) -> Iterator[None]:
    """Pillow's limit of pixels, which it refuses beyond the double of, as `_MOST_PIXELS` for a TIFF."""
    before = module.MAX_IMAGE_PIXELS
    module.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2 if kind == "Tiff" else before
    try:
        yield
    finally:
        module.MAX_IMAGE_PIXELS = before


def layout(image: "Image", **more: Any) -> Layout:
    """Of the picture as `pixels` gives it; `more` are attributes of `Layout`."""
    if image.mode not in _CHANNELS:
        raise UnsupportedError(f"its kind of pixels ({image.mode}) is not supported")
    width, height = image.size
    channels = more.pop("channels", _CHANNELS[image.mode])
    return Layout(height, width, channels, buffer=PIXEL * width * height, **more)


def pixels(image: "Image", layout: Layout, scratch: Scratch, icc: bytes | None = None) -> Pixels:
    """Decoded: gray, BGR or BGRA, as many channels as `layout` says.

    Args:
        image: of any mode; CMYK and Lab become sRGB.
        layout: of the result.
        scratch: where it goes.
        icc: the profile of a CMYK picture; None, or one that cannot be used: converted without one.
    """
    image.load()
    out = scratch.empty(layout.coded_shape, np.uint8)
    fill(out, image, icc)
    return out


def fill(out: Pixels, image: "Image", icc: bytes | None = None) -> None:
    """Convert a picture into `out`, gray, BGR or BGRA of the same size, a few rows at a time."""
    from PIL.ImageCms import applyTransform

    transform = to_srgb(icc) if icc and image.mode == "CMYK" else None
    transform = _lab_to_srgb() if image.mode == "LAB" else transform
    mode, order = {1: ("L", [0]), 3: ("RGB", [2, 1, 0]), 4: ("RGBA", [2, 1, 0, 3])}[out[0, 0].size]
    step = max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        band = image.crop((0, top, image.width, min(image.height, top + step)))
        converted = applyTransform(band, transform) if transform else band.convert(mode)
        rows = np.asarray(converted)
        out[top : top + step] = rows[..., order] if rows.ndim == 3 else rows


def to_srgb(icc: bytes) -> "ImageCmsTransform | None":
    """From CMYK to sRGB, perceptual; None if this is no usable profile of CMYK."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "CMYK", "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _lab_to_srgb() -> "ImageCmsTransform":
    """From CIE Lab under D50 to sRGB."""
    from PIL import ImageCms

    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
