"""Which of the fast networks is better on a film, by codec and quality, and what the film's size says of it.

    python benchmarks/film_choice.py data/valid         writes results/film-choice.json

The films pan over photographs for a second, downscaled by bicubic, with chroma at half size. PSNR (Y) is that
of one enlarged frame against the photograph.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from statistics import mean

import av
import numpy as np
from numpy.typing import NDArray

from common import RESULTS, Section, Table, machine, publish
from srcli.imaging.metrics import psnr_y
from srcli.imaging.resize import downscale
from srcli.models import auto
from srcli.upscaler import Upscaler
from srcli_train.folders import find_source, read_rgb

Pixels = NDArray[np.uint8]
ENCODERS = {"H.264": "libx264", "H.265": "libx265", "AV1": "libsvtav1"}
QUALITIES = {"H.264": (0, 8, 12, 16, 20, 24, 28), "H.265": (8, 12, 16, 20, 24, 28), "AV1": (10, 20, 30, 40)}
_FRAMES, _RATE = 25, 25
_STEP = 3  # pixels of the photograph from frame to frame
_SIZE = 384, 640  # (height, width) of the enlarged film


@dataclass(frozen=True, slots=True)
class Film:
    """One film: bits a pixel, and PSNR (Y, dB) of its middle frame by both networks."""

    codec: str
    crf: int
    bits: float
    fast: float
    photo: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of HR images, 715×384 pixels or more")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "film-choice.json")
    options, before = parser.parse_args(given), machine()
    publish(options.out, _section(measure(options.folder, options.scale), options.scale), given, before)


def measure(folder: Path, scale: int) -> list[Film]:
    """All photographs in all codecs and qualities."""
    networks = [Upscaler(name, scale, precision="fp32") for name in auto.models(auto.AUTO_FAST)]
    films = []
    for path in find_source(folder, "valid").hr:
        large = _pan(np.asarray(read_rgb(path), np.uint8))
        small = [np.asarray(downscale(frame, scale), np.uint8) for frame in large]
        for codec, qualities in QUALITIES.items():
            for crf in qualities:
                size, decoded = _through(small, ENCODERS[codec], crf)
                middle = len(large) // 2
                scores = [float(psnr_y(up(decoded[middle]), large[middle], scale)) for up in networks]
                films.append(Film(codec, crf, 8 * size / (len(small) * small[0][..., 0].size), *scores))
    return films


def _pan(picture: Pixels) -> list[Pixels]:
    height, width = _SIZE
    return [np.ascontiguousarray(picture[:height, _STEP * n : _STEP * n + width]) for n in range(_FRAMES)]


def _through(frames: Sequence[Pixels], encoder: str, crf: int) -> tuple[int, list[Pixels]]:
    """Bytes of the film, and its frames again."""
    file = BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream(encoder, Fraction(_RATE), options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
    size = file.tell()
    file.seek(0)
    with av.open(file) as source:
        return size, [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def _section(films: list[Film], scale: int) -> Section:
    rows = []
    for codec, crf in dict.fromkeys((film.codec, film.crf) for film in films):
        group = [film for film in films if (film.codec, film.crf) == (codec, crf)]
        bits = sorted(film.bits for film in group)
        fast, photo = mean(film.fast for film in group), mean(film.photo for film in group)
        better = sum(film.photo > film.fast for film in group)
        rows.append((
            codec, str(crf), f"{bits[0]:.2f} – {bits[-1]:.2f}", f"{fast:.2f}", f"{photo:.2f}",
            f"{photo - fast:+.2f}", f"{better} of {len(group)}",
        ))  # fmt: skip
    header = ("codec", "CRF", "bits a pixel", "fast", "fast-photo", "gain", "fast-photo is better")
    return Section(
        "film-choice",
        f"Which fast network for which film, x{scale}",
        f"Films of {_FRAMES} frames that pan over photographs; PSNR (Y), dB, of the middle frame in fp32 "
        "against the photograph, the mean over the films.",
        (Table(header, tuple(rows)),),
        {"films": [asdict(film) for film in films]},
    )


if __name__ == "__main__":
    main()
