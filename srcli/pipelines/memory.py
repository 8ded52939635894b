"""How many bytes a picture takes on its way through the folder pipeline."""

from math import prod

from srcli.media.images import Header
from srcli.pipelines.sizes import SizeRequest
from srcli.upscaler import steps

_COPIES = 4
"""Of the output while it is encoded, pixels included; measured: PNG 2.2, JPEG 1.4, BMP 3.0, WebP 3.8."""

_NETWORKS = (2, 3, 4)  # scales a model usually has


def picture_bytes(header: Header, size: SizeRequest) -> int:
    """Bytes a picture in flight may take at its worst, from the header alone.

    That is the decoded input, what the network makes of it where bicubic finishes, and the output as
    pixels and encoded.
    """
    depth = header.channels * (2 if header.bit_depth > 8 else 1)
    source = (header.height, header.width)
    output, factor = size.output(source), size.factor(source)
    made = prod(steps(_NETWORKS, factor)) if factor > 1 else 1
    between = 0 if made == factor else made * made
    return depth * (prod(source) * (1 + between) + _COPIES * prod(output))
