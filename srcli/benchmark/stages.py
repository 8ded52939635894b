"""Where the time of one picture goes: decoding, upscaling, encoding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from srcli.benchmark import chart
from srcli.benchmark.attempts import Attempts
from srcli.benchmark.plan import Case
from srcli.io import pictures
from srcli.io.pictures import Picture
from srcli.upscaler import Upscaler

_QUALITY = 92  # of the JPEG to read, as cameras write them


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of each stage for one picture; encoding includes writing the file."""

    decode: float
    infer: float
    encode: float

    @property
    def total(self) -> float:
        """Seconds from file to file, one stage after the other."""
        return self.decode + self.infer + self.encode


def measure(
    upscalers: Mapping[Case, Upscaler], side: int, repetitions: int, attempts: Attempts[Case]
) -> dict[Case, Stages]:
    """Medians over rounds in turns, after one that warms up, of those that do not fail.

    Args:
        upscalers: what upscales; their tiles count.
        side: of the square JPEG that goes in, pixels.
        repetitions: rounds that count.
        attempts: keeps what fails.
    """
    taken: dict[Case, list[Stages]] = {case: [] for case in upscalers}
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "picture.jpg"), Path(folder, "large.jpg")
        pictures.write(source, Picture(chart.render(side)), quality=_QUALITY)
        runs = {case: _recorded(up, source, target, taken[case]) for case, up in upscalers.items()}
        done = attempts.interleave(runs, repetitions)
    return {case: _median(taken[case][-repetitions:]) for case in done}


def _recorded(upscaler: Upscaler, source: Path, target: Path, taken: list[Stages]) -> Callable[[], float]:
    def run() -> float:
        taken.append(_once(upscaler, source, target))
        return taken[-1].total

    return run


def _once(upscaler: Upscaler, source: Path, target: Path) -> Stages:
    begin = perf_counter()
    picture = pictures.read(source)
    decoded = perf_counter()
    large = upscaler(picture.pixels)
    inferred = perf_counter()
    pictures.write(target, Picture(large, picture.metadata))
    return Stages(decoded - begin, inferred - decoded, perf_counter() - inferred)


def _median(values: list[Stages]) -> Stages:
    return Stages(
        median(v.decode for v in values), median(v.infer for v in values), median(v.encode for v in values)
    )
