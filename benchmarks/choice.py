"""How often `--model auto` is right: on clean and degraded LR, the network it takes against the other one.

    python benchmarks/choice.py data/valid         adds the section "choice" to results/photo.json

Right means that the other network's PSNR (Y) is not higher by more than 0.05 dB.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from common import RESULTS, Section, Table, machine, publish
from srcli.imaging.metrics import psnr_y
from srcli.imaging.resize import modcrop
from srcli.models import auto
from srcli.upscaler import Upscaler
from srcli_train.degradations import degrade
from srcli_train.folders import find_source, read_rgb

MARGIN = 0.05
"""dB that do not count."""


@dataclass(frozen=True, slots=True)
class Case:
    """One LR image: PSNR of both networks in dB, and which one auto takes."""

    name: str
    scale: int
    degradation: str
    clean: float
    photo: float
    chose_photo: bool

    @property
    def taken(self) -> float:
        """PSNR of the one it takes."""
        return self.photo if self.chose_photo else self.clean

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
    parser.add_argument("--out", type=Path, default=RESULTS / "photo.json")
    options, before = parser.parse_args(given), machine()
    cases = [case for scale in options.scales for case in _cases(options.folder, scale, options.seeds)]
    publish(options.out, _section(cases), given, before)


def _cases(folder: Path, scale: int, seeds: int) -> Iterator[Case]:
    clean, photo = (Upscaler(model, scale) for model in (auto.CLEAN, auto.PHOTO))
    for file in find_source(folder, "valid").hr:
        hr = np.asarray(modcrop(read_rgb(file), scale), np.uint8)
        for kind, seed in [("bicubic", 0), *(("photo", seed) for seed in range(seeds))]:
            lr = degrade(kind, hr, scale, seed)
            reached = [float(psnr_y(upscaler(lr), hr, scale)) for upscaler in (clean, photo)]
            took = auto.model_for(auto.AUTO, lr) == auto.PHOTO
            yield Case(file.name, scale, kind, *reached, took)


def _section(cases: Sequence[Case]) -> Section:
    header = ("LR", "scale", "images", auto.CLEAN, auto.PHOTO, "auto", "right")
    groups = dict.fromkeys((case.degradation, case.scale) for case in cases)
    rows = [_row(*group, [c for c in cases if (c.degradation, c.scale) == group]) for group in groups]
    right = sum(case.right for case in cases)
    method = (
        "PSNR (Y, shave = scale), dB, means. "
        f"Right: the other network is not better by more than {MARGIN} dB; "
        f"in all {right} of {len(cases)} ({right / len(cases):.1%})."
    )
    title = "How often auto takes the network that does better"
    return Section("choice", title, method, (Table(header, tuple(rows)),), {"cases": [*map(asdict, cases)]})


def _row(kind: str, scale: int, cases: Sequence[Case]) -> tuple[str, ...]:
    means = (fmean(getattr(case, field) for case in cases) for field in ("clean", "photo", "taken"))
    right = sum(case.right for case in cases)
    return (kind, f"x{scale}", f"{len(cases)}", *(f"{m:.2f}" for m in means), f"{right} of {len(cases)}")


if __name__ == "__main__":
    main()
