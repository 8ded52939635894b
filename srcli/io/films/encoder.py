"""An encoder opened as an `Encoding` says, and frames made for it from planes."""

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from av import VideoFrame
from av.container import OutputContainer
from numpy.typing import NDArray

from srcli.imaging.pixels import Pixels
from srcli.io.films import codecs
from srcli.io.films.encoding import Encoding

_RANGES = {False: 1, True: 2}
"""AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG."""
_PAIRED = {"nv12": 0, "p010le": 6}
"""Formats with both chromas in one plane, and the bits by which their codes are moved up."""


def add_encoder(out: OutputContainer, encoding: Encoding, time_base: Fraction, rate: Fraction) -> Any:
    """Add a stream to a container, with an encoder that opens with the first frame.

    Args:
        time_base: of the frames, in seconds.
        rate: frames a second, for what an encoder decides by it.
    """
    if encoding.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes to stderr past FFmpeg
    height, width = encoding.size
    options = dict(encoding.options)
    if encoding.encoder == "libx264":
        options = codecs.repeatable_x264(options)
    stream: Any = out.add_stream(encoding.encoder, rate=rate, options=options, width=width, height=height)
    stream.pix_fmt = encoding.pixel_format
    context = stream.codec_context
    context.time_base = stream.time_base = time_base
    context.thread_count = encoding.threads
    # By default an encoder's threads share each frame in slices, which makes libx264's result larger.
    context.thread_type = "SLICE" if encoding.codec == "ffv1" else "FRAME"
    tag(context, encoding)
    return stream


def tag(target: Any, encoding: Encoding) -> None:
    """Say on a codec context, or a frame, what the colours are; on a context also the aspect of a sample."""
    target.color_range = _RANGES[encoding.coding.full_range]
    target.colorspace = encoding.coding.matrix
    target.color_primaries, target.color_trc = encoding.primaries, encoding.transfer
    if not isinstance(target, VideoFrame):
        target.sample_aspect_ratio = encoding.sample_aspect


def make_frame(
    planes: Sequence[Pixels], alpha: Pixels | None, time: int, time_base: Fraction, encoding: Encoding
) -> VideoFrame:
    """A frame for the encoder.

    Args:
        planes: Y, Cb, Cr, or G, B, R, as `encoding.coding` says, each (H, W) of its own size; uint8 for 8
            bits, else uint16. Of a gray format only the first counts; one alone gets neutral chroma.
        alpha: (H, W), full range of the same bits; needed if `encoding.alpha`.
        time: when it is shown, in `time_base`.

    Raises:
        ValueError: planes of another size, or alpha is missing.
    """
    if encoding.alpha and alpha is None:
        raise ValueError("alpha is missing")
    height, width = encoding.size
    frame = VideoFrame(width, height, encoding.pixel_format)
    for index, samples in enumerate(_packed(planes, alpha if encoding.alpha else None, frame, encoding)):
        _fill(frame, index, samples)
    frame.pts, frame.time_base = time, time_base
    tag(frame, encoding)
    return frame


def _packed(
    planes: Sequence[Pixels], alpha: Pixels | None, frame: VideoFrame, encoding: Encoding
) -> list[NDArray[Any]]:
    """Samples for each plane of a frame."""
    if encoding.pixel_format in ("bgr0", "bgra"):
        green, blue, red = planes
        last = np.zeros_like(green) if alpha is None else alpha
        return [np.stack([blue, green, red, last], axis=-1).reshape(len(green), -1)]
    if encoding.pixel_format in _PAIRED:
        up = _PAIRED[encoding.pixel_format]
        pairs = np.stack(planes[1:3], axis=-1)
        return [planes[0] << up, pairs.reshape(len(pairs), -1) << up]
    parts = [*planes, *([] if alpha is None else [alpha])][: len(frame.planes)]
    for plane in frame.planes[len(parts) :]:
        parts.append(np.full((plane.height, plane.width), encoding.coding.neutral, planes[0].dtype))
    return parts


def _fill(frame: VideoFrame, index: int, samples: NDArray[Any]) -> None:
    """Write (H, W) samples into a plane. Its rows are longer than they: FFmpeg aligns them."""
    plane: Any = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    rows[:, : samples.shape[1] * samples.itemsize].view(samples.dtype)[...] = samples
