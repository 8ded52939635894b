"""How most tools enlarge a film, and what becomes of one: frames in 8-bit RGB by swscale, a loop, an encoder.

The loop is what `ffmpeg -> raw pipe -> Python -> pipe -> ffmpeg` and loops over OpenCV's VideoCapture do,
without their pipes: decode, network and encoder take turns, frames follow each other at the average rate, and
only the picture is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Engine
from srcli.io.films.planes import planes_of

Pixels = NDArray[Any]
Enlarge = Callable[[Pixels], Pixels]

DEFAULT = {"crf": "17", "preset": "veryfast"}
"""As srcli encodes up to 4K."""
LOSSLESS = {"qp": "0", "preset": "veryfast"}


def by(engine: Engine) -> Enlarge:
    """A network over whole frames of 8 bits."""

    def enlarge(rgb: Pixels) -> Pixels:
        lr = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]).astype(np.float32) / 255
        sr = engine.run(lr)[0].transpose(1, 2, 0)
        return np.ascontiguousarray((sr * 255).round().clip(0, 255).astype(np.uint8))

    return enlarge


def film(source: Path, target: Path, enlarge: Enlarge, options: dict[str, str] = DEFAULT) -> None:
    """Enlarge every frame of a film."""
    with av.open(str(source)) as read, av.open(str(target), "w") as out:
        video = read.streams.video[0]
        stream: Any = out.add_stream("libx264", rate=video.average_rate, options=options)
        for frame in read.decode(video):
            made = enlarge(frame.to_ndarray(format="rgb24"))
            if not stream.codec_context.is_open:
                stream.height, stream.width = made.shape[:2]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(made, format="rgb24")))
        out.mux(stream.encode(None))


@dataclass(frozen=True, slots=True)
class Found:
    """What a film is.

    Attributes:
        times: seconds at which its frames are shown, after the first.
        streams: how many there are beside the picture, by kind.
        chapters: how many.
        colour: matrix, primaries, transfer and range, by number.
        pixels: FFmpeg's name of the pixel format.
    """

    times: tuple[float, ...]
    streams: dict[str, int]
    chapters: int
    colour: tuple[int, ...]
    pixels: str


def look(path: Path) -> Found:
    """Read what matters of a film; its frames are not decoded."""
    with av.open(str(path)) as read:
        video = read.streams.video[0]
        context: Any = video.codec_context
        colour = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        others = [stream.type for stream in read.streams if stream is not video]
        stamps = sorted(packet.pts for packet in read.demux(video) if packet.size and packet.pts is not None)
        times = tuple(float((stamp - stamps[0]) * video.time_base) for stamp in stamps)
        kinds = {kind: others.count(kind) for kind in dict.fromkeys(others)}
        return Found(times, kinds, len(read.chapters()), tuple(map(int, colour)), context.pix_fmt)


def luma_error(one: Path, other: Path) -> tuple[float, int]:
    """Mean and largest difference of the luma of two films of the same frames, in codes of 8 bits."""
    total, largest, count = 0.0, 0.0, 0
    for a, b in zip(_lumas(one), _lumas(other), strict=False):
        error = np.abs(a - b)
        total, largest, count = total + float(error.mean()), max(largest, float(error.max())), count + 1
    return total / count, round(largest)


def luma_psnr(one: Path, other: Path) -> float | None:
    """PSNR of the luma of two films over all frames, dB; None if they are equal."""
    errors = [float(np.square(a - b).mean()) for a, b in zip(_lumas(one), _lumas(other), strict=True)]
    mean = sum(errors) / len(errors)
    return float(10 * np.log10(255**2 / mean)) if mean else None


def _lumas(path: Path) -> Iterator[Pixels]:
    """The luma of all frames, in codes of 8 bits."""
    with av.open(str(path)) as read:
        for frame in read.decode(read.streams.video[0]):
            unit = 1 << frame.format.components[0].bits - 8
            yield planes_of(frame)[0][0].astype(np.float32) / np.float32(unit)
