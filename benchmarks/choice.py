"""How often `--model auto` is right: the network it takes against the other one, picture by picture.

    python benchmarks/choice.py data/valid         adds the section "choice" to results/photo.json

LR are photographs, clean, stored as JPEGs of several qualities, and degraded as mdsr-photo was trained for,
and drawings made by code, with hard edges and with smooth ones. Right means that the other network's PSNR (Y)
is not higher by more than 0.05 dB.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import RESULTS, Section, Table, machine, publish
from srcli.imaging.metrics import psnr_y
from srcli.imaging.resize import modcrop
from srcli.models import auto
from srcli.upscaler import Upscaler
from srcli_train import drawings
from srcli_train.degradations import degrade
from srcli_train.degradations.photo import jpeg
from srcli_train.folders import find_source, read_rgb

MARGIN = 0.05
"""dB that do not count."""
QUALITIES = (95, 85, 75, 50, 30)
"""Of plain JPEGs."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One LR image and what both networks make of it.

    Attributes:
        name: of the file, or the seed of the drawing.
        scale: output / input.
        kind: a degradation, or one of `drawings.KINDS`.
        clean, photo: PSNR (Y) of both networks, dB.
        chose_photo: which one auto takes.
        clean_ghosts, photo_ghosts: `drawings.ghost_share` of both, of drawings.
    """

    name: str
    scale: int
    kind: str
    clean: float
    photo: float
    chose_photo: bool
    clean_ghosts: float = 0.0
    photo_ghosts: float = 0.0

    @property
    def taken(self) -> float:
        """PSNR of the one it takes."""
        return self.photo if self.chose_photo else self.clean

    @property
    def ghosts(self) -> float:
        """Ghosts of the one it takes."""
        return self.photo_ghosts if self.chose_photo else self.clean_ghosts

    @property
    def right(self) -> bool:
        """Whether the other one is not better."""
        return self.taken >= max(self.clean, self.photo) - MARGIN


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="HR images")
    parser.add_argument("--scales", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--seeds", type=int, default=3, help="degraded versions of each image")
    parser.add_argument("--drawings", type=int, default=12, help="drawings of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "photo.json")
    options, before = parser.parse_args(given), machine()
    photographs, drawn = [], []
    for scale in options.scales:
        compare = _comparison(scale)
        photographs += [compare(*example) for example in _photographs(options.folder, scale, options.seeds)]
        drawn += [compare(*example) for example in _drawings(scale, options.drawings)]
    publish(options.out, _section(photographs, drawn), given, before)


def _photographs(folder: Path, scale: int, seeds: int) -> Iterator[tuple[str, str, Pixels, Pixels]]:
    """Name, kind, LR and HR: each picture clean, then as JPEGs, then degraded by each seed."""
    for file in find_source(folder, "valid").hr:
        hr = np.asarray(modcrop(read_rgb(file), scale), np.uint8)
        clean = degrade("bicubic", hr, scale, 0)
        yield file.name, "bicubic", clean, hr
        for quality in QUALITIES:
            yield file.name, f"JPEG {quality}", jpeg(clean, quality, "4:2:0"), hr
        for seed in range(seeds):
            yield file.name, "photo", degrade("photo", hr, scale, seed), hr


def _drawings(scale: int, count: int) -> Iterator[tuple[str, str, Pixels, Pixels]]:
    for kind in drawings.KINDS:
        for seed in range(count):
            yield str(seed), kind, *drawings.draw(kind, scale, np.random.default_rng(seed))


def _comparison(scale: int) -> Callable[[str, str, Pixels, Pixels], Case]:
    """The function that runs both networks at a scale on (name, kind, LR, HR)."""
    clean, photo = (Upscaler(model, scale) for model in (auto.CLEAN, auto.PHOTO))

    def compare(name: str, kind: str, lr: Pixels, hr: Pixels) -> Case:
        results = [upscaler(lr) for upscaler in (clean, photo)]
        reached = [float(psnr_y(result, hr, scale)) for result in results]
        ghosts = [drawings.ghost_share(lr, result) if kind in drawings.KINDS else 0.0 for result in results]
        return Case(name, scale, kind, *reached, auto.choose(auto.AUTO, lr) == auto.PHOTO, *ghosts)

    return compare


def _section(photographs: Sequence[Case], drawn: Sequence[Case]) -> Section:
    method = (
        "PSNR (Y, shave = scale), dB, means. "
        f"Right: the other network is not better by more than {MARGIN} dB; "
        f"{_counted(photographs)} photographs, {_counted(drawn)} drawings. "
        "A JPEG N is the bicubic LR at that quality, 4:2:0. "
        "Ghosts: of the pixels whose LR 3×3 has one colour, those off by more than 16 of 255."
    )
    header = ("scale", "images", auto.CLEAN, auto.PHOTO, "auto", "right")
    ghosts = tuple(f"ghosts, {name}" for name in (auto.CLEAN, auto.PHOTO, "auto"))
    tables = [Table(("LR", *header), tuple(_row(group) for group in _groups(photographs)))]
    if drawn:
        rows = ((*_row(group), *_ghosts(group)) for group in _groups(drawn))
        tables.append(Table(("drawing", *header, *ghosts), tuple(rows)))
    cases = [asdict(case) for case in (*photographs, *drawn)]
    title = "How often auto takes the network that does better"
    return Section("choice", title, method, tuple(tables), {"cases": cases})


def _counted(cases: Sequence[Case]) -> str:
    right = sum(case.right for case in cases)
    return f"{right} of {len(cases)} ({right / max(1, len(cases)):.1%})"


def _groups(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """The cases of each kind and scale."""
    for group in dict.fromkeys((case.kind, case.scale) for case in cases):
        yield [case for case in cases if (case.kind, case.scale) == group]


def _row(cases: Sequence[Case]) -> tuple[str, ...]:
    means = (np.mean([getattr(case, field) for case in cases]) for field in ("clean", "photo", "taken"))
    right = sum(case.right for case in cases)
    kind, scale = cases[0].kind, f"x{cases[0].scale}"
    return (kind, scale, f"{len(cases)}", *(f"{mean:.2f}" for mean in means), f"{right} of {len(cases)}")


def _ghosts(cases: Sequence[Case]) -> tuple[str, ...]:
    fields = ("clean_ghosts", "photo_ghosts", "ghosts")
    means = (np.nanmean([getattr(case, field) for case in cases]) for field in fields)
    return tuple(f"{mean:.2%}" for mean in means)


if __name__ == "__main__":
    main()
