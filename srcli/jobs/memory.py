"""How many bytes a picture takes on its way through the folder pipeline."""

from math import prod

from srcli.io.pictures import Header
from srcli.jobs.sizes import Size, SizeRequest
from srcli.upscaler import steps

_DECODING = {"avif": 6}
_DECODING_OTHERS = 4
"""Copies of the decoded picture that reading one may hold: the file, the decoder's own picture, ours in its
channel order and in our own. Measured on 6 MP: AVIF 6.0, PNG and TIFF 3.8, WebP 3.1, JPEG 2.2."""

_ENCODING = {"avif": 14, "webp": 10}
_ENCODING_OTHERS = 4
"""Copies of the output while it is encoded, pixels and file included. Measured on 3 MP: AVIF 8.0 (gray 13.1),
WebP 7.7, without loss 9.5, TIFF 3.3, BMP 3.0, PNG and JPEG 2.6."""


def picture_bytes(header: Header, size: SizeRequest, scales: tuple[int, ...], written: str) -> int:
    """Bytes a picture in flight may take at its worst, from the header alone.

    That is the most of three stages, each of which lets go of what the one before needed: decoding it,
    enlarging it, and encoding it.

    Args:
        header: of the input.
        size: what is asked for.
        scales: of the model's networks; empty where bicubic does everything.
        written: format of the output.

    Raises:
        InputError: the output would be too large.
        ModelNotFoundError: the model does not enlarge.
    """
    sample = 2 if header.bit_depth > 8 else 1
    source = (header.height, header.width)
    output = size.output(source)
    pixel = header.channels * sample
    decoding = pixel * prod(source) * _DECODING.get(header.format, _DECODING_OTHERS)
    enlarging = pixel * (prod(source) + prod(output)) + _beside(
        header, sample, _between(source, size, scales)
    )
    return max(decoding, enlarging, pixel * prod(output) * _ENCODING.get(written, _ENCODING_OTHERS))


def _beside(header: Header, sample: int, between: int) -> int:
    """What enlarging holds beside input and output. With alpha, that is a copy of the colour, and the grids
    that fill its hidden pixels (`srcli.imaging.alpha`) before there is anything between."""
    alpha = header.channels in (2, 4)
    colours = header.channels - alpha
    if not alpha:
        return colours * sample * between
    pixels = header.height * header.width
    return colours * sample * pixels + max(colours * sample * between, (4 * colours + 1) * pixels // 3)


def _between(source: Size, size: SizeRequest, scales: tuple[int, ...]) -> int:
    """Pixels of what networks make that is not yet the output: another one or bicubic goes on with it."""
    factor, output = size.factor(source), size.output(source)
    made = [source]
    for scale in steps(scales, factor) if scales and factor > 1 else ():
        made.append((made[-1][0] * scale, made[-1][1] * scale))
    results = made[1:-1] if made[-1] == output else made[1:]
    return sum(prod(result) for result in results)
