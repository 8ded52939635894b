"""The whole benchmark: every subject of a plan, one after the other; what fails is told in its row."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from platform import python_version

from srcli import tiles
from srcli.backends import bicubic, doctor, registry
from srcli.backends.base import BackendOptions, EngineInfo
from srcli.benchmark import chart, machine, quality, speed, stages, startup
from srcli.benchmark.attempts import Attempts
from srcli.benchmark.chart import Pixels
from srcli.benchmark.plan import Case, Plan, Request, Subject, Tell
from srcli.benchmark.quality import Quality
from srcli.benchmark.report import Report, Row
from srcli.benchmark.stages import Stages
from srcli.upscaler import Upscaler

_STAGE_ROUNDS = 3  # at most: a stage takes long enough to be steady

Key = tuple[Case, int]
"""A case and the side of its tile."""

Keep = Callable[[Report], None]


def run(plan: Plan, command: str, tell: Tell, keep: Keep) -> Report:
    """Measure everything in a plan; each step is told before it begins.

    Args:
        plan: what to measure.
        command: what repeats it.
        tell: hears, in lines for people, what is measured next.
        keep: is given what there is so far after each subject.

    Raises:
        InputError: the HR pictures cannot be read.
    """
    where, date, request = machine.here(), f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}", plan.request
    hr = chart.pictures(request.pictures) if request.pictures else None
    report = Report(
        rows=(),
        machine=where,
        versions={"python": python_version(), **doctor.installed()},
        command=command,
        date=date,
        repetitions=request.repetitions,
        starts=request.starts,
        picture=picture_side(request),
        measured_on=f"a rendered chart of {chart.SIDE}²" if hr is None else f"{len(hr)} HR pictures",
    )
    for subject in plan.subjects:
        report = report.with_rows(_rows(subject, request, tell))
        keep(report)
    return report


def picture_side(request: Request) -> int:
    """Of the picture whose stages are timed, LR pixels: the same for all inputs, half a tile more."""
    return max(request.tiles) * 3 // 2


def _rows(subject: Subject, request: Request, tell: Tell) -> list[Row]:
    started, sped = Attempts[Key](), Attempts[Key]()
    if request.starts:
        tell(f"{subject.name}: start-up and memory, in fresh processes")
    starts = startup.measure(subject, request, started)
    tell(f"{subject.name}: speed of {len(subject.cases)} engines in turns")
    speeds = speed.measure(subject, request, sped)
    tell(f"{subject.name}: decode, infer, encode; quality")
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
            problem=_told(failed),
        )

    return [row(case, size) for size in request.sizes for case in subject.cases]


def _told(failed: Mapping[str, str | None]) -> str:
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
        taken = stages.measure(upscalers, side, rounds, tried)
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
    exact = None if subject.model == bicubic.NAME else _exact(subject, request, upscalers)
    return quality.measure(upscalers, exact, _pictures(request), subject.file.spec.scale, scored)


def _exact(subject: Subject, request: Request, upscalers: dict[Case, Upscaler]) -> Upscaler | None:
    """The model in fp32 on the first CPU backend, loaded already or not; None where there is none."""

    def load() -> Upscaler:
        name = registry.choose("auto", BackendOptions("fp32", "cpu")).name
        case = Case(name, "cpu", "fp32")
        return upscalers.get(case) or _upscaler(subject, case, request.tiles[-1], request.threads)

    return Attempts[str]().of("exact", load)


def _pictures(request: Request) -> Iterator[Pixels]:
    """HR pictures, one in memory at a time."""
    if request.pictures is None:
        yield chart.render(chart.SIDE)
    else:
        yield from map(chart.read, chart.pictures(request.pictures))


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
