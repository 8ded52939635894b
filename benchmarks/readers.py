"""Readers of pictures that are independent of srcli: Pillow, tifffile, FFmpeg and a collection itself.

Each takes a path and gives (pixels, depth): RGBA of 16 bits, (H, W, 4), upright, straight alpha, and the bits
a channel, 8 or 16, of which they were made; 8 bits are times 257.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.io import pictures

__all__ = ["READERS", "Read", "ffmpeg", "pillow", "spread", "tiff"]

Pixels = NDArray[Any]
Read = tuple[Pixels, int]
MOST = 60_000_000
"""Pixels that are compared."""


def spread(pixels: Pixels) -> Read:
    """As every reader gives them, from gray to RGBA of 8 or 16 bits."""
    depth = pixels.itemsize * 8
    wide = pixels.astype(np.uint16) * (257 if depth == 8 else 1)
    wide = wide[..., None] if wide.ndim == 2 else wide
    opaque = np.full_like(wide[..., :1], 65535)
    colour = wide[..., :1].repeat(3, 2) if wide.shape[2] < 3 else wide[..., :3]
    return np.concatenate([colour, opaque if wide.shape[2] in (1, 3) else wide[..., -1:]], 2), depth


def pillow(path: Path) -> Read:
    """The first page that is no smaller copy, the first frame or the main picture; CMYK and Lab to sRGB."""
    import pillow_heif
    from PIL import Image, ImageOps

    pillow_heif.register_heif_opener()
    Image.MAX_IMAGE_PIXELS = MOST
    with Image.open(path) as image:
        image.seek(_page(path) if image.format == "TIFF" else 0)
        if image.width * image.height > MOST:
            raise ValueError("too large")
        image.load()
        bits = path.read_bytes()[24] if image.format == "PNG" else 8
        return spread(_pixels(ImageOps.exif_transpose(image), bits))


def _page(path: Path) -> int:
    """The first page of a TIFF that is neither a smaller copy nor a mask."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as file:
            return next((i for i, page in enumerate(file.pages) if not int(page.subfiletype) & 5), 0)
    except Exception:
        return 0


def _pixels(image: Any, bits: int) -> Pixels:
    from PIL import Image

    if image.mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.uint16)
        clear = image.info.get("transparency")
        alpha = np.where(gray == clear, 0, 65535).astype(np.uint16)
        return gray if clear is None else np.dstack([gray, alpha])
    if image.mode == "I" and np.asarray(image).min() >= 0 and np.asarray(image).max() <= 65535:
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("F", "I"):
        raise ValueError("samples of 32 bits")
    if image.mode in ("CMYK", "LAB"):
        return np.asarray(_srgb(image))
    if image.mode == "La":
        return np.asarray(
            Image.merge("RGBa", (*[image.getchannel(0)] * 3, image.getchannel(1))).convert("RGBA")
        )
    if bits < 8 and image.mode == "L" and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= 255 // ((1 << bits) - 1)  # Pillow compares it with the wider gray
    return np.asarray(image.convert("RGBA"))


def _srgb(image: Any) -> Any:
    from PIL import ImageCms

    icc, target = image.info.get("icc_profile"), ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), target, outputMode="RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(image, profile, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError):
        return image.convert("RGB")


def tiff(path: Path) -> Read:
    """Gray, palettes and RGB of the TIFF's page, by tifffile."""
    from tifffile import PHOTOMETRIC, TiffFile

    with TiffFile(path) as file:
        page: Any = file.pages[_page(path)]
        stored, bits, kind = page.asarray(), page.bitspersample, page.photometric
        if page.planarconfig == 2 and stored.ndim == 3:
            stored = np.moveaxis(stored, 0, -1)
        if stored.dtype.kind not in "ub" or stored.ndim > 3 or bits > 16:
            raise ValueError("another kind of samples")
        if kind == PHOTOMETRIC.PALETTE:
            return _turned(spread((np.moveaxis(page.colormap, 0, -1)[stored] >> 8).astype(np.uint8)), page)
        if kind == PHOTOMETRIC.YCBCR and page.compression == 1:
            return _turned(spread(_from_ycbcr(page, stored)), page)
        if kind not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB):
            raise ValueError("another colour space")
        top, full = (1 << bits) - 1, 255 if bits <= 8 else 65535
        pixels = np.round(stored.astype(np.float64) * full / top).astype(
            np.uint8 if full == 255 else np.uint16
        )
        if kind == PHOTOMETRIC.MINISWHITE:
            pixels = full - pixels
        if pixels.ndim == 3:
            colours = 3 if kind == PHOTOMETRIC.RGB else 1
            pixels = pixels[..., : colours + bool(page.extrasamples and page.extrasamples[0])]
            if page.extrasamples and page.extrasamples[0] == 1:
                alpha = pixels[..., -1:].astype(np.float64)
                straight = np.round(pixels[..., :-1].astype(np.float64) * full / np.maximum(alpha, 1)).clip(
                    0, full
                )
                pixels = np.concatenate([straight.astype(pixels.dtype), pixels[..., -1:]], 2)
        return _turned(spread(pixels), page)


def _from_ycbcr(page: Any, stored: Pixels) -> Pixels:
    """Full range, by the file's own coefficients."""
    tag = page.tags.get(529)
    red, green, blue = (a / b for a, b in np.reshape(tag.value, (3, 2))) if tag else (0.299, 0.587, 0.114)
    luma, u, v = (stored[..., i].astype(np.float64) for i in range(3))
    r, b = luma + (2 - 2 * red) * (v - 128), luma + (2 - 2 * blue) * (u - 128)
    rgb = np.stack([r, (luma - red * r - blue * b) / green, b], 2)
    return np.round(rgb).clip(0, 255).astype(np.uint8)


def _turned(read: Read, page: Any) -> Read:
    pixels, tag = read[0], page.tags.get(274)
    return _upright(pixels, int(tag.value) if tag else 1), read[1]


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    pixels = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _is_premultiplied(path: Path) -> bool:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as file:
            extra = file.pages[0].extrasamples
            return file.pages[0].samplesperpixel == 4 and bool(extra) and int(extra[0]) == 1
    except Exception:
        return False


def ffmpeg(path: Path) -> Read:
    """The first frame of a BMP, GIF, PNG or TIFF, by FFmpeg's own decoders, if they find no fault.

    The orientation is the one that Pillow finds.
    """
    import av
    from PIL import Image

    kind = pictures.kind_of(path)
    if kind not in ("bmp", "gif", "png", "tiff"):
        raise ValueError("it knows no alpha of AVIF and no profile, and reads on in files that are cut off")
    with av.open(str(path)) as container:
        if kind != "tiff":  # in which it takes tags that it does not know for faults
            container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        frame = next(container.decode(video=0))
    if frame.width * frame.height > MOST:
        raise ValueError("too large")
    deep = max(part.bits for part in frame.format.components) > 8
    if frame.format.name.startswith(("gray", "mono")) and frame.format.name not in ("gray16be", "gray16le"):
        pixels = (
            frame.to_ndarray(format="gray")
            if frame.format.name == "gray"
            else frame.to_ndarray(format="rgb24")
        )
    elif deep:
        pixels = frame.to_ndarray(format="gray16le" if frame.format.name.startswith("gray") else "rgba64le")
    else:
        pixels = frame.to_ndarray(format="rgba")
    if _is_premultiplied(path):
        alpha = np.maximum(pixels[..., 3:].astype(np.float64), 1)
        top = np.iinfo(pixels.dtype).max
        colour = np.round(pixels[..., :3] * float(top) / alpha).clip(0, top).astype(pixels.dtype)
        pixels = np.concatenate([colour, pixels[..., 3:]], 2)
    read = spread(pixels)
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(274, 1)
    except Exception:
        orientation = 1
    return _upright(read[0], orientation), read[1]


def expected(path: Path) -> Read:
    """The PNG that the collection itself names as right, in the layouts of bmpsuite and image-rs."""
    reference = Path(str(path).replace("/tests/images/", "/tests/reference/") + ".png")
    other = path.parents[1] / "html" / f"{_SAME.get(path.stem, path.stem)}.png"
    found = next(file for file in (reference, other) if file != path and file.is_file())
    return pillow(found)


_SAME = {"rgb32bf": "rgb24", "rgb32-111110": "rgb24", "rgba32abf": "rgba32", "pal8oversizepal": "pal8"}
"""Bitmaps of bmpsuite and what they show."""
READERS = {"collection": expected, "Pillow": pillow, "tifffile": tiff, "FFmpeg": ffmpeg}
