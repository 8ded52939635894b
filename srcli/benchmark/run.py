"""The whole benchmark: every subject, one after the other; what fails is said in its row."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from srcli import tiles
from srcli.backends.base import BICUBIC, Batch, Engine, EngineInfo
from srcli.benchmark import quality, speed
from srcli.benchmark.quality import Pixels, Quality, Stages
from srcli.benchmark.report import Report, Row, here, now, versions
from srcli.benchmark.rounds import Attempts
from srcli.benchmark.subjects import Case, Request, Subject, reference
from srcli.imaging import pixels
from srcli.upscaler import Upscaler

_STAGE_ROUNDS = 3  # at most: a stage takes long enough to be steady

Key = tuple[Case, int]
"""A case and the side of its tile."""

Keep = Callable[[Report], None]


_log = logging.getLogger(__name__)


def run(request: Request, subjects: Sequence[Subject], command: str, keep: Keep) -> Report:
    """Measure everything; each step is logged before it begins.

    Args:
        request: at which sizes, how often and on which pictures.
        subjects: what to measure.
        command: what repeats it.
        keep: is given what there is so far after each subject.

    Raises:
        InputError: the HR pictures cannot be read.
    """
    hr = quality.hr_files(request.pictures) if request.pictures else None
    report = Report(
        rows=(),
        machine=here(),
        versions=versions(),
        command=command,
        date=now(),
        repetitions=request.repetitions,
        starts=request.starts,
        picture=picture_side(request),
        measured_on=f"a rendered chart of {quality.SIDE}²" if hr is None else f"{len(hr)} HR pictures",
    )
    for subject in subjects:
        report = report.with_rows(_rows(subject, request))
        keep(report)
    return report


def picture_side(request: Request) -> int:
    """Of the picture whose stages are timed, LR pixels: the same for all inputs, half a tile more."""
    return max(request.tiles) * 3 // 2


def _rows(subject: Subject, request: Request) -> list[Row]:
    started, sped = Attempts[Key](), Attempts[Key]()
    if request.starts:
        _log.info("%s: start-up and memory, in fresh processes", subject.name)
    starts = speed.starts(subject, request, started)
    _log.info("%s: speed of %d engines in turns", subject.name, len(subject.cases))
    speeds = speed.measure(subject, request, sped)
    _log.info("%s: decode, infer, encode; quality", subject.name)
    staged, scored = Attempts[Key](), Attempts[Case]()
    parts, scores = _pictures_through(subject, request, staged, scored)

    def row(case: Case, size: int) -> Row:
        tile = request.tile_of(size)
        start, process = starts.get((case, tile), (None, None))
        known = speeds.get((case, size))
        failed = {
            "start": started.problems.get((case, tile)),
            "speed": sped.problems.get((case, size)),
            "stages": staged.problems.get((case, tile)),
            "quality": scored.problems.get(case),
        }
        return Row(
            model=subject.file.name,
            scale=subject.file.spec.scale,
            size=size,
            tile=tile,
            info=known.info if known else EngineInfo(case.backend, case.device, case.precision),
            start=start,
            host_memory=process.host_memory if process else None,
            device_memory=process.device_memory if process else None,
            speed=known,
            stages=parts.get((case, tile)),
            quality=scores.get(case),
            problem=_problem(failed),
        )

    return [row(case, size) for size in request.sizes for case in subject.cases]


def _problem(failed: Mapping[str, str | None]) -> str:
    """Each reason once, behind the parts that it stopped."""
    reasons = dict.fromkeys(why for why in failed.values() if why)
    parts = {why: ", ".join(name for name, one in failed.items() if one == why) for why in reasons}
    return "; ".join(f"{names}: {why}" for why, names in parts.items())


def _pictures_through(
    subject: Subject, request: Request, staged: Attempts[Key], scored: Attempts[Case]
) -> tuple[dict[Key, Stages], dict[Case, Quality]]:
    """Time by stage at every tile, and quality, which does not depend on the tile, at the last of them."""
    rounds, side = min(request.repetitions, _STAGE_ROUNDS), picture_side(request)
    parts: dict[Key, Stages] = {}
    upscalers: dict[Case, Upscaler] = {}
    for tile in request.tiles:
        tried = Attempts[Case]()
        upscalers = _upscalers(subject, request, tile, tried)
        taken = quality.stages(upscalers, side, rounds, tried)
        parts |= {(case, tile): part for case, part in taken.items()}
        staged.problems |= {(case, tile): why for case, why in tried.problems.items()}
        scored.problems = {c: why for c, why in tried.problems.items() if c not in upscalers}
    return parts, _quality(subject, request, upscalers, scored)


def _upscalers(subject: Subject, request: Request, tile: int, tried: Attempts[Case]) -> dict[Case, Upscaler]:
    made = {
        case: tried.of(case, partial(_upscaler, subject, case, tile, request.threads))
        for case in subject.cases
    }
    return {case: upscaler for case, upscaler in made.items() if upscaler is not None}


def _quality(
    subject: Subject, request: Request, upscalers: dict[Case, Upscaler], scored: Attempts[Case]
) -> dict[Case, Quality]:
    exact = None if subject.model == BICUBIC else _exact(subject, request, upscalers)
    return quality.measure(upscalers, exact, _pictures(request), subject.file.spec.scale, scored)


def _exact(subject: Subject, request: Request, upscalers: dict[Case, Upscaler]) -> Upscaler | None:
    """The model in fp32 on the first CPU backend, loaded already or not; None where there is none."""

    def load() -> Upscaler:
        case = reference()
        return upscalers.get(case) or _upscaler(subject, case, request.tiles[-1], request.threads)

    return Attempts[str]().of("exact", load)


def _pictures(request: Request) -> Iterator[Pixels]:
    """HR pictures, one in memory at a time."""
    if request.pictures is None:
        yield quality.chart(quality.SIDE)
    else:
        yield from map(quality.read_hr, quality.hr_files(request.pictures))


def _upscaler(subject: Subject, case: Case, tile: int, threads: int) -> Upscaler:
    spec = subject.file.at(case.precision).spec
    return Upscaler(
        subject.model,
        spec.scale,
        backend=case.backend,
        precision=case.precision,
        device=case.device,
        tile=max(tile, tiles.smallest_tile(spec.halo)),
        threads=threads,
    )


def engine_alone(
    model: str, scale: int, backend: str, device: str
) -> tuple[Engine, Callable[[Pixels], list[Batch]]]:
    """The engine as `srcli upscale` loads it, and what gives it the windows that are planned for a picture.

    The only place of the benchmarks that reaches into `Upscaler`.
    """
    network = Upscaler(model, scale, backend=backend, device=device)._network(model, scale)

    def windows(picture: Pixels) -> list[Batch]:
        size = (picture.shape[0], picture.shape[1])
        return [pixels.to_network(picture[tile.window.slices]) for tile in network.plan(size)]

    return network.engine, windows
