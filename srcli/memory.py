"""What takes how much memory: the process, a network, a codec, a picture on its way."""

import ctypes
import sys
from contextlib import suppress
from math import prod

from srcli.io import pictures
from srcli.models.catalog import scales_for
from srcli.models.spec import ModelSpec
from srcli.settings import Settings, Size, scaled

PROCESS = 100 << 20
"""Bytes of the interpreter with NumPy, OpenCV and an inference library, before a network is loaded."""
_FEATURE_PLANES = 3
"""Planes of all features, float32 at LR, that a network holds at once at its peak. Measured with OpenVINO on
windows of 512 pixels, int8, bf16 and fp32: x2 0.17 to 0.26 GB, x3 0.26 to 0.34, x4 0.43 to 0.49."""
_OUTPUT_PLANES = 7
"""The same of float32 planes of three colours at the output's size: the network's, a copy, one ahead."""
_CODEC = 64 << 20
"""Bytes that reading or writing takes whatever the picture: a file that is not mapped, and rows."""
LEAST = 32 << 20
"""Bytes that pictures may take in any case."""
LOSSLESS = ("png", "tiff", "bmp")
"""Formats that keep every pixel."""
_DEFLATE = 1032
"""Deflate makes no bytes shorter than by this."""
_JPEG = 256
"""Pixels that take a byte of a JPEG at least: a bit for each table of a block of 64."""


def give_back() -> None:
    """Give freed memory back to the system.

    glibc keeps what other threads have freed for each of them: every encoder of a film would add to it.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def of_network(spec: ModelSpec, height: int, width: int) -> int:
    """Bytes that a network takes with windows of that many LR pixels, weights included."""
    features = max(spec.features, 16) * _FEATURE_PLANES + spec.scale**2 * spec.channels * _OUTPUT_PLANES
    return 4 * (features * height * width + spec.parameters)


def for_pictures(settings: Settings, networks: int) -> int:
    """Bytes that pictures may take where networks take `networks`.

    At least what a small picture takes; what does not fit is computed in scratch files.
    """
    return max(settings.memory - PROCESS - networks, LEAST)


def of_picture(
    header: pictures.Header, settings: Settings, scales: tuple[int, ...], written: str, limit: int
) -> int:
    """Bytes of RAM that a picture on its way takes at its worst, from the header alone.

    That is the most of three stages, each of which lets go of what the one before needed: decoding it,
    enlarging it, and encoding it. Arrays of more than `limit` bytes lie in scratch files and count nothing.

    Args:
        header: of the input.
        settings: size asked for.
        scales: of the model's networks; empty where bicubic does everything.
        written: format of the output.
        limit: bytes of the largest array in RAM.

    Raises:
        InputError: the output would be too large.
        ModelNotFoundError: the model does not enlarge.
    """
    sample, source = (2 if header.bit_depth > 8 else 1), (header.height, header.width)
    output = settings.output_size(source)

    def ram(size: Size, channels: int, item: int = sample) -> int:
        length = prod(size) * channels * item
        return length if length <= limit else 0

    given, made = ram(source, header.channels), ram(output, header.channels)
    alpha = header.channels in (2, 4)
    colors = header.channels - alpha
    between = sum(ram(size, colors) for size in _between(source, settings, scales))
    filling = (
        ram(source, colors) if alpha else 0
    )  # a copy whose hidden pixels are filled, and the grids for it
    grids = prod(source) * (4 * colors + 1) // 3 if alpha else 0
    enlarging = given + made + filling + max(between, grids)
    encoding = made + encode_bytes(
        written, output, header.channels, header.bit_depth, lossless=header.lossless
    )
    return max(given + decode_bytes(header, limit=limit), enlarging, encoding)


def of_scratch(header: pictures.Header, settings: Settings, scales: tuple[int, ...], limit: int) -> int:
    """Bytes on disk that the arrays beyond `limit` of a picture take at most at once."""
    sample, source = (2 if header.bit_depth > 8 else 1), (header.height, header.width)
    sizes = [source, *_between(source, settings, scales), settings.output_size(source)]
    lengths = [prod(size) * header.channels * sample for size in sizes]
    return sum(length for length in lengths if length > limit)


def _between(source: Size, settings: Settings, scales: tuple[int, ...]) -> list[Size]:
    """Sizes that networks make that are not yet the output: another one or bicubic goes on with them."""
    factor, made = settings.factor(source), [source]
    run = scales_for(scales, factor) if scales and factor > 1 else ()
    if settings.output_size(source) == source:  # a network may clean it
        run = scales[:1]
    for scale in run:
        made.append(scaled(made[-1], scale))
    return made[1:-1] if len(made) > 1 and made[-1] == settings.output_size(source) else made[1:]


def decode_bytes(header: pictures.Header, *, limit: int | None = None) -> int:
    """Memory that `pictures.read` takes at most beside the array of the decoded pixels.

    Measured in processes of their own on pictures of 4 and 9 megapixels.

    Args:
        header: of the file.
        limit: as of `pictures.read`; None: the pixels are in memory.
    """
    copied = header.copied if limit is None or header.copied <= limit else 0
    return _codec_bytes(header.height * header.width) + copied + header.decoder_bytes


def encode_bytes(
    format: str,  # noqa: A002
    size: Size,
    channels: int,
    bit_depth: int,
    *,
    lossless: bool = False,
) -> int:
    """Memory that `pictures.write` takes at most beside the array of the pixels and a converted copy of it.

    Measured as `decode_bytes`, with BGR(A) pixels.

    Args:
        format: a value of `pictures.SUFFIXES`.
        size: (height, width) in pixels.
        channels: 1 to 4.
        bit_depth: 8 or 16.
        lossless: of a WebP, as of `pictures.Picture`.
    """
    pixel = 0
    if format == "webp":
        pixel = 38 if lossless else 35 if channels in (2, 4) else 10
    if format == "avif":
        pixel = (16 if channels == 1 else 38) * (3 if bit_depth == 16 else 2) // 2
    return _codec_bytes(size[0] * size[1]) + size[0] * size[1] * pixel


def file_bytes(format: str, size: Size, channels: int, bit_depth: int) -> int:  # noqa: A002
    """A generous estimate of a file's size: that of its pixels, or half of it for lossy formats.

    Photographs take less; noise may take half as much again.
    """
    pixels = size[0] * size[1] * channels * (2 if bit_depth == 16 else 1)
    return pixels if format in LOSSLESS else pixels // 2


def least_file_bytes(format: str, size: Size, channels: int, bit_depth: int) -> int:  # noqa: A002
    """Bytes that a file takes whatever it shows."""
    if format == "bmp":
        return size[0] * size[1] * (3 if channels > 2 else 1)
    if format in LOSSLESS:
        return file_bytes(format, size, channels, bit_depth) // _DEFLATE
    return size[0] * size[1] // _JPEG if format == "jpeg" else 0


def _codec_bytes(pixels: int) -> int:
    """What a codec takes for itself: rows and tables, of small pictures less."""
    return min(_CODEC, (1 << 20) + 16 * pixels)
