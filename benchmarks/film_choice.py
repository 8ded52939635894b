"""Which of the fast networks is better on a film, by codec and quality, and what the film's size says of it.

    python benchmarks/film_choice.py data/valid         writes results/film-choice.json

The films pan over photographs for a second, downscaled by bicubic, with chroma at half size, and are read as
`srcli upscale` reads them. PSNR (Y) is that of the middle frame, enlarged, against the photograph.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

import clips
from common import RESULTS, Section, Table, machine, publish
from srcli.imaging import yuv
from srcli.imaging.metrics import psnr_y
from srcli.imaging.pixels import as_rgb8
from srcli.imaging.resize import downscale, modcrop
from srcli.io.films import reader
from srcli.io.films.facts import probe
from srcli.models import auto
from srcli.upscaler import Upscaler
from srcli_train.folders import find_source, read_rgb

Pixels = NDArray[Any]
ENCODERS = {"H.264": "libx264", "H.265": "libx265", "AV1": "libsvtav1"}
QUALITIES = {"H.264": (0, 8, 12, 16, 20, 24, 28), "H.265": (8, 12, 16, 20, 24, 28), "AV1": (10, 20, 30, 40)}
"""CRF, best first."""
_RATE = 25
_STEP = 3  # pixels of the photograph from frame to frame


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
    add = parser.add_argument
    add("folder", type=Path, help="folder of HR images, larger than the films by the way of the pan")
    add("--scale", type=int, default=2)
    add("--codecs", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    add("--frames", type=int, default=25)
    add("--size", type=int, nargs=2, default=(384, 640), help="height and width of the enlarged films")
    add("--out", type=Path, default=RESULTS / "film-choice.json")
    options, before = parser.parse_args(given), machine()
    publish(options.out, _section(measure(options), options), given, before)


def measure(options: argparse.Namespace) -> list[Film]:
    """All photographs in all codecs and qualities.

    Raises:
        SystemExit: a photograph is too small.
    """
    scale = options.scale
    networks = [Upscaler(name, scale, precision="fp32") for name in auto.models(auto.AUTO_FAST)]
    films = []
    with TemporaryDirectory() as scratch:
        for path in find_source(options.folder, "valid").hr:
            large = list(_pan(path, options))
            small = [downscale(frame, scale) for frame in large]
            middle = len(large) // 2
            for codec, crf in _films(options.codecs):
                film = Path(scratch, "film.mkv")
                clips.write(film, small, crf=crf, rate=_RATE, encoder=ENCODERS[codec])
                lr = _frame(film, middle)
                scores = [psnr_y(as_rgb8(up(lr)), large[middle], scale) for up in networks]
                bits = clips.bits(film) / (len(small) * small[0][..., 0].size)
                films.append(Film(codec, crf, bits, *scores))
    return films


def _films(codecs: Sequence[str]) -> Iterator[tuple[str, int]]:
    return ((codec, crf) for codec in codecs for crf in QUALITIES[codec])


def _pan(path: Path, options: argparse.Namespace) -> Iterator[Pixels]:
    """Frames whose LR has even sides."""
    picture, (height, width) = read_rgb(path), options.size
    least = height, width + _STEP * (options.frames - 1)
    if picture.shape[0] < least[0] or picture.shape[1] < least[1]:
        raise SystemExit(f"{path}: at least {least[1]}×{least[0]} pixels are needed.")
    for left in range(0, _STEP * options.frames, _STEP):
        yield np.ascontiguousarray(modcrop(picture[:height, left : left + width], 2 * options.scale))


def _frame(film: Path, number: int) -> Pixels:
    """(H, W, 3) uint16 RGB, as `srcli upscale` gives it to the network."""
    facts = probe(film)
    frame = next(islice(reader.frames(facts), number, None))
    return yuv.to_rgb(frame.planes, facts.coding)[0]


def _section(films: list[Film], options: argparse.Namespace) -> Section:
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
        f"Which fast network for which film, x{options.scale}",
        f"Films of {options.frames} frames that pan over photographs; PSNR (Y), dB, of the middle frame in "
        "fp32 against the photograph, the mean over the films.",
        (Table(header, tuple(rows)),),
        {"films": [asdict(film) for film in films]},
    )


if __name__ == "__main__":
    main()
