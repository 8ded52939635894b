"""LR like that of compressed films: a few moving frames through H.264 or H.265."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from srcli.errors import MissingExtraError
from srcli.imaging.resize import downscale
from srcli_train.degradations.kernels import Floats
from srcli_train.degradations.photo import GRID, Noise, Photo, Pixels, Range, add_noise, log_uniform, to_uint8

_CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "h264", {"preset": "veryfast"}),
    "h265": (
        "libx265",
        "hevc",
        {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
}
"""Encoder, decoder and options, by codec. One thread each: their result must not depend on the machine."""
_LEAST = 66  # pixels a side; libx265 gives different results for pictures of one 64×64 block's width
_FRAMES = 3  # as many as hold each kind of frame: one by itself, one predicted, one between two


@dataclass(frozen=True, slots=True)
class Film:
    """A frame of a short film in H.264 or H.265 with chroma at half size, a photograph's chain, or clean LR.

    Shares are probabilities, ranges are (least, most) and drawn uniformly where not noted otherwise.

    Attributes:
        clean_share: pictures left as plain bicubic LR.
        film_share: of the others, those that go through a film's codec; the rest goes through `photo`.
        photo: its chain, and the blurs and filters of films. Films are blurred more seldom than old
            photographs, and a small network that expects blur sharpens what is sharp.
        h265_share: films in H.265, the others are H.264.
        crf: constant quality of H.264, whole numbers, both bounds included; H.265 takes two more, as its
            quality is that of H.264 then.
        still_share: films in which nothing moves.
        motion: most movement from frame to frame along each axis, in LR pixels.
        grain_share: films with grain. grain: its standard deviation at middle gray on 0-255, drawn evenly
            in log.
    """

    clean_share: float = 0.25
    film_share: float = 0.75
    photo: Photo = field(default_factory=lambda: Photo(clean_share=0, blur_share=0.3))
    h265_share: float = 0.4
    crf: tuple[int, int] = (16, 34)
    still_share: float = 0.2
    motion: float = 2.0
    grain_share: float = 0.3
    grain: Range = (1.0, 8.0)

    def __call__(self, hr: Pixels, scale: int, draw: np.random.Generator, own: np.random.Generator) -> Pixels:
        """See `Degradation`. One of the frames is aligned with HR, and that is the one returned."""
        if draw.random() < self.clean_share:
            return np.asarray(downscale(hr, scale), np.uint8)
        if draw.random() >= self.film_share:
            return self.photo(hr, scale, draw, own)
        frames, wanted = self._frames(hr, scale, draw)
        codec = "h265" if draw.random() < self.h265_share else "h264"
        crf = int(draw.integers(self.crf[0], self.crf[1] + 1)) + 2 * (codec == "h265")
        phase = (int(draw.integers(GRID)), int(draw.integers(GRID)))
        return compressed(frames, codec, crf, phase)[wanted]

    def _frames(self, hr: Pixels, scale: int, draw: np.random.Generator) -> tuple[list[Pixels], int]:
        """One to three LR frames of a picture that moves, and which of them lies where HR does."""
        image = self.photo.blurred(np.asarray(hr, np.float32), scale, draw)
        count = int(draw.integers(1, _FRAMES + 1))
        wanted, most = int(draw.integers(count)), round(self.motion * scale)
        step = draw.integers(-most, most + 1, 2) * int(draw.random() >= self.still_share)
        moved = [_moved(image, *(step * (number - wanted))) for number in range(count)]
        size = (hr.shape[0] // scale, hr.shape[1] // scale)
        low = self.photo.resampled(np.concatenate(moved, 2), size, draw)  # all by the same filter
        frames = np.split(low, count, 2)
        if draw.random() < self.grain_share:
            grain = Noise(log_uniform(self.grain, draw), draw.random(), 1.0, draw.uniform(*self.photo.grain))
            frames = [add_noise(frame, grain, draw) for frame in frames]
        return [to_uint8(frame) for frame in frames], wanted


def _moved(image: Floats, down: int, right: int) -> Floats:
    """A picture moved by whole pixels and mirrored at its border."""
    height, width = image.shape[:2]
    most = max(abs(down), abs(right))
    framed = cv2.copyMakeBorder(image, most, most, most, most, cv2.BORDER_REFLECT)
    top, left = most - down, most - right
    return np.asarray(framed[top : top + height, left : left + width], np.float32)


def compressed(frames: list[Pixels], codec: str, crf: int, phase: tuple[int, int] = (0, 0)) -> list[Pixels]:
    """Encode as a film and decode.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size.
        codec: "h264" or "h265".
        crf: constant quality, 0-51; less is better.
        phase: rows and columns of the first block that lie outside the picture.

    Returns:
        As many (H, W, 3) uint8 RGB.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    av = _av()
    from srcli.io.films.codecs import repeatable_x264

    name, reads, options = _CODECS[codec]
    if name == "libx264":
        options = repeatable_x264(options)
    (top, left), (height, width) = phase, frames[0].shape[:2]
    framed = [
        cv2.copyMakeBorder(frame, top, _more(top + height), left, _more(left + width), cv2.BORDER_REFLECT)
        for frame in frames
    ]
    encoder = av.CodecContext.create(name, "w")
    encoder.height, encoder.width = framed[0].shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    encoder.thread_count, encoder.options = 1, options | {"crf": str(crf)}
    packets = []
    for number, frame in enumerate(framed):
        planes = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
        planes.pts = number
        packets += encoder.encode(planes)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(reads, "r")
    decoder.thread_count = 1
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    assert len(decoded) == len(frames), "a codec lost frames"
    rgb = (frame.to_ndarray(format="rgb24") for frame in decoded)
    return [np.ascontiguousarray(frame[top : top + height, left : left + width]) for frame in rgb]


def _more(side: int) -> int:
    """Pixels that fill a side up to whole chroma samples and to what encoders take."""
    return max(_LEAST - side, side % 2)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("PyAV, whose codecs degrade the patches,", "video") from error
    return av
