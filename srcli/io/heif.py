"""HEIC and HEIF, as phones write them, by pillow-heif (extra `heif`), which is imported only for one."""

import io
from importlib.util import find_spec
from typing import Any

import numpy as np

from srcli.io import metadata as meta
from srcli.io.codec import DamagedError, Data, Layout, Pixels, UnsupportedError
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
_LIKE_SRGB = ((1, 2), (1, 2, 6, 13))
"""Numbers of primaries and transfer that say sRGB, or nothing."""
_DECODER = 6
"""Bytes that libheif holds for each of a pixel's: its planes and its interleaved copy."""


def installed() -> bool:
    """Whether there is what reads them."""
    return find_spec("pillow_heif") is not None


def _opened(data: Data) -> Any:
    """The primary picture, its header read."""
    if not installed():
        raise UnsupportedError("it is HEIC", 'Install what reads it: pip install "srcli[heif]"')
    import pillow_heif

    data.seek(0)
    try:
        return pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, bgr_mode=True)
    except (ValueError, SyntaxError, RuntimeError, EOFError, OSError) as error:
        raise DamagedError(f"its HEIC structure is damaged or not supported ({error})") from error


def layout(data: Data) -> Layout:
    """Size as shown: libheif applies turns and mirrors itself."""
    image = _opened(data)
    mode, _, deep = image.mode.partition(";")
    if mode not in _CHANNELS:
        raise UnsupportedError(f"its kind of pixels ({image.mode}) is not supported")
    width, height = image.size
    info, channels, bits = image.info, _CHANNELS[mode], 16 if deep else 8
    return Layout(
        height,
        width,
        channels,
        bits,
        len(image),
        colour="" if info.get("icc_profile") else _colour(info.get("nclx_profile") or {}),
        unkept=tuple(_unkept(info)),
        buffer=height * width * channels * bits // 8 * _DECODER,
    )


def _colour(tags: dict[str, Any]) -> str:
    primaries, transfer = tags.get("color_primaries", 2), tags.get("transfer_characteristics", 2)
    if primaries in _LIKE_SRGB[0] and transfer in _LIKE_SRGB[1]:
        return ""
    return f"primaries {primaries}, transfer {transfer}"


def _unkept(info: dict[str, Any]) -> list[str]:
    gain = any("gainmap" in name.lower() for name in info.get("aux") or ())
    return ["gain map (HDR)"] * gain + ["depth map"] * bool(info.get("depth_images"))


def check(data: Data) -> str:
    """The decoder notices what is missing."""
    return ""


def decode(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """Gray, BGR or BGRA; 10 and 12 bits over the full range of 16."""
    image = _opened(data)
    try:
        pixels = np.asarray(image)
    except (ValueError, RuntimeError, EOFError, OSError) as error:
        raise DamagedError(f"it is cut off or damaged ({error})") from error
    out = scratch.empty(layout.coded_shape, layout.dtype)
    bits = int(image.info.get("bit_depth", 8))
    if layout.bit_depth == 8:
        out[...] = pixels.reshape(out.shape)
        return out
    top = (1 << bits) - 1
    for row, given in zip(out, pixels.reshape(out.shape), strict=True):
        row[...] = ((given >> 16 - bits).astype(np.uint32) * 65535 + top // 2) // top
    return out


def metadata(data: Data) -> Metadata:
    """EXIF, ICC profile and XMP."""
    info = _opened(data).info
    return Metadata(
        meta.bare_exif(info.get("exif") or b""), info.get("icc_profile") or None, info.get("xmp") or None
    )


def orientation(data: Data, metadata: Metadata) -> int:
    """Upright: EXIF's orientation only repeats what the container says, which the decoder follows."""
    return 1
