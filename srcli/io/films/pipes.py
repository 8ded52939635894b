"""Films through pipes: stdin into a file, and segments out as they close, as Matroska or Y4M.

A stream can neither be read twice nor sought in, and both are needed: nothing but all packets tells a film's
frames and times. So stdin is kept in a file until the run ends.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import av
import numpy as np
from av.container import OutputContainer

from srcli.errors import InputError, OutputError, UsageError
from srcli.imaging.pixels import Pixels
from srcli.io.films.encoding import Encoding
from srcli.io.films.facts import Facts
from srcli.io.films.planes import planes_of
from srcli.io.films.segments import Parts, filling
from srcli.io.films.source import opened, reason
from srcli.io.films.streams import Carried

_BLOCK = 1 << 20
_MOST_REORDERED = 16
"""Frames that H.264 and H.265 may decode before one that is shown earlier."""
_SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (4, 1): "411"}
_SITINGS = {"left": "mpeg2", "center": "jpeg"}


@contextmanager
def spooled(stream: BinaryIO, folder: Path) -> Iterator[Path]:
    """A film from a stream as a file, gone when the block ends.

    Args:
        folder: for the file; exists.

    Raises:
        InputError: the stream is empty, or cannot be read.
        OutputError: the folder cannot take it.
    """
    with TemporaryDirectory(prefix=".srcli-stdin-", dir=folder, ignore_cleanup_errors=True) as place:
        path = Path(place, "stdin")
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file, _BLOCK)
        except OSError as error:
            raise OutputError(
                f"{folder}: what comes from stdin cannot be kept here ({error.strerror}).",
                "Free some space: all of it is kept until the run ends.",
            ) from error
        if not path.stat().st_size:
            raise InputError("Nothing came from stdin.", "Does the program before the pipe fail?")
        yield path


def send(
    ordered: Iterable[Path],
    sink: BinaryIO,
    encoding: Encoding,
    facts: Facts,
    carried: Carried,
    times: Sequence[int],
    *,
    tags: Mapping[str, str],
    start: Fraction | None = None,
    end: Fraction | None = None,
) -> None:
    """As `segments.join`, into a stream, with each segment as it comes.

    Args:
        ordered: segments, each complete when it is given, and not needed when the next one is asked for.
        times: of all frames, in the film's time base.

    Raises:
        InputError: as `segments.join`.
        OutputError: the stream takes nothing more.
    """
    with opened(facts.path) as film:
        delay = _MOST_REORDERED if encoding.codec in ("h264", "hevc") else 0
        parts = Parts(film, encoding, facts, carried, times, start, end, delay)
        with _piped(sink, parts.holds.muxer, parts.options(tags)) as target:
            parts.fill(target, ordered, tags)


class _Sink:
    """A stream as FFmpeg writes it: forward only, and at once, so that a player sees it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self._stream.flush()
        return len(data)


@contextmanager
def _piped(sink: BinaryIO, muxer: str, options: Mapping[str, str]) -> Iterator[OutputContainer]:
    """A container to fill that goes into a stream.

    Raises:
        OutputError: the stream takes nothing more.
    """
    try:
        with filling(_Sink(sink), muxer, options) as out:
            yield out
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"The film cannot be written to the pipe ({reason(error)}).") from error


def check_y4m(facts: Facts, encoding: Encoding, *, on_error: str) -> None:
    """Refuse what Y4M cannot hold.

    Raises:
        UsageError: alpha, RGB, rare subsampling, or no constant rate.
    """
    coding = encoding.coding
    subsampled = (coding.sub_x, coding.sub_y)
    rare = subsampled not in _SUBSAMPLINGS or (subsampled == (4, 1) and coding.bits > 8)
    if encoding.alpha or rare or not encoding.pixel_format.startswith(("yuv", "gray")):
        raise UsageError(f"Y4M cannot hold pixels as {encoding.pixel_format}.", "Use --container mkv.")
    if not facts.rate or on_error == "skip":
        raise UsageError("Y4M has a constant rate only.", "Use --container mkv.")


def y4m_carried(carried: Carried) -> Carried:
    """What Y4M takes of a film: the picture."""
    kept = tuple(step for step in carried.steps if step.how == "picture")
    others = (*carried.copied, *(text.partition(" to ")[0] for text in carried.converted))
    return Carried(
        (), (), (*(f"{name}: y4m holds the picture alone" for name in others), *carried.dropped), kept
    )


def send_y4m(ordered: Iterable[Path], sink: BinaryIO, encoding: Encoding, facts: Facts) -> None:
    """As `send`, the picture alone, as Y4M. Matrix, primaries and transfer have no place in it.

    Args:
        ordered: segments of FFV1.
    """
    try:
        sink.write(_header(encoding, facts))
        for path in ordered:
            for planes in _decoded(path):
                sink.write(b"FRAME\n")
                for plane in planes:
                    little = plane if plane.dtype == np.uint8 else plane.astype("<u2", copy=False)
                    sink.write(np.ascontiguousarray(little).data.cast("B"))
                sink.flush()
    except OSError as error:
        raise OutputError(f"The film cannot be written to the pipe ({reason(error)}).") from error


def _decoded(path: Path) -> Iterator[Sequence[Pixels]]:
    try:
        with av.open(str(path.absolute())) as segment:
            for frame in segment.decode(video=0):
                yield planes_of(frame)[0]
    except av.error.FFmpegError as error:
        raise InputError(f"{path} is damaged ({reason(error)}).", "Start anew.") from error


def _header(encoding: Encoding, facts: Facts) -> bytes:
    """The first line: size, rate, progressive, aspect of a sample, colour."""
    coding, (height, width) = encoding.coding, encoding.size
    rate, aspect = facts.rate or Fraction(25), encoding.sample_aspect
    gray = encoding.pixel_format.startswith("gray")
    sampling = "mono" if gray else _SUBSAMPLINGS[coding.sub_x, coding.sub_y]
    if coding.bits > 8:
        sampling += f"{'' if gray else 'p'}{coding.bits}"
    elif sampling == "420":
        sampling += _SITINGS.get(coding.siting, "mpeg2")
    colour = f"C{sampling} XCOLORRANGE={'FULL' if coding.full_range else 'LIMITED'}"
    numbers = f"W{width} H{height} F{rate.numerator}:{rate.denominator}"
    return f"YUV4MPEG2 {numbers} Ip A{aspect.numerator}:{aspect.denominator} {colour}\n".encode()
