"""The whole benchmark: every subject of a plan, one after the other."""

from collections.abc import Iterator
from datetime import UTC, datetime
from platform import python_version

from srcli import doctor, tiling
from srcli.backends import bicubic, table
from srcli.backends.base import BackendOptions
from srcli.benchmark import chart, machine, quality, speed, stages, startup
from srcli.benchmark.chart import Pixels
from srcli.benchmark.plan import Case, Plan, Request, Subject, Tell
from srcli.benchmark.quality import Quality
from srcli.benchmark.report import Report, Row
from srcli.benchmark.stages import Stages
from srcli.upscaler import Upscaler

_STAGE_ROUNDS = 3  # at most: a stage takes long enough to be steady


def run(plan: Plan, command: str, tell: Tell) -> Report:
    """Measure everything in a plan; each step is told before it begins.

    Raises:
        InputError: the HR pictures cannot be read.
        InferenceError: an engine failed.
    """
    where, date, request = machine.here(), f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}", plan.request
    hr = chart.pictures(request.pictures) if request.pictures else None
    rows = [row for subject in plan.subjects for row in _rows(subject, request, tell)]
    return Report(
        rows=tuple(rows),
        machine=where,
        versions={"python": python_version(), **doctor.installed()},
        command=command,
        date=date,
        picture=picture_side(request),
        measured_on=f"a rendered chart of {chart.SIDE}²" if hr is None else f"{len(hr)} HR pictures",
    )


def picture_side(request: Request) -> int:
    """Of the picture whose stages are timed, LR pixels: the same for all sizes, half a tile more than one."""
    return max(request.sizes) * 3 // 2


def _rows(subject: Subject, request: Request, tell: Tell) -> list[Row]:
    tell(f"{subject.name}: start-up and memory, in fresh processes")
    starts = startup.measure(subject, request)
    tell(f"{subject.name}: speed of {len(subject.cases)} engines in turns")
    speeds = speed.measure(subject, request)
    tell(f"{subject.name}: decode, infer, encode; quality")
    parts, scores = _pictures_through(subject, request)
    return [
        Row(
            model=subject.file.name,
            scale=subject.file.spec.scale,
            size=size,
            start=start,
            host_memory=process.host_memory,
            device_memory=process.device_memory,
            speed=speeds[case, size],
            stages=parts[case, size],
            quality=scores[case],
        )
        for (case, size), (start, process) in starts.items()
    ]


def _pictures_through(
    subject: Subject, request: Request
) -> tuple[dict[tuple[Case, int], Stages], dict[Case, Quality]]:
    """Time by stage at every size, and quality, which does not depend on the tile, at the last of them."""
    rounds, side = min(request.repetitions, _STAGE_ROUNDS), picture_side(request)
    parts: dict[tuple[Case, int], Stages] = {}
    upscalers: dict[Case, Upscaler] = {}
    for size in request.sizes:
        upscalers = {case: _upscaler(subject, case, size, request.threads) for case in subject.cases}
        taken = stages.measure(upscalers, side, rounds)
        parts |= {(case, size): part for case, part in taken.items()}
    return parts, _quality(subject, request, upscalers)


def _quality(subject: Subject, request: Request, upscalers: dict[Case, Upscaler]) -> dict[Case, Quality]:
    exact = None if subject.model == bicubic.NAME else _exact(subject, request, upscalers)
    return quality.measure(upscalers, exact, _pictures(request), subject.file.spec.scale)


def _exact(subject: Subject, request: Request, upscalers: dict[Case, Upscaler]) -> Upscaler:
    """The model in f32 on the first CPU backend, loaded already or not."""
    name = table.choose("auto", BackendOptions("f32", "cpu")).name
    case = Case(name, "cpu", "f32")
    return upscalers.get(case) or _upscaler(subject, case, request.sizes[-1], request.threads)


def _pictures(request: Request) -> Iterator[Pixels]:
    """HR pictures, one in memory at a time."""
    if request.pictures is None:
        yield chart.render(chart.SIDE)
    else:
        yield from map(chart.read, chart.pictures(request.pictures))


def _upscaler(subject: Subject, case: Case, size: int, threads: int) -> Upscaler:
    spec = subject.file.spec
    return Upscaler(
        subject.model,
        spec.scale,
        backend=case.backend,
        precision=case.precision,
        device=case.device,
        tile=max(size, tiling.smallest_tile(spec.halo)),
        threads=threads,
    )
