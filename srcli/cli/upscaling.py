"""What `srcli upscale` does with its options: plan, load, work, tell."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from srcli.cli.console import printable, product, show_error, talk
from srcli.cli.units import count, duration

if TYPE_CHECKING:
    from srcli.interrupt import Interrupt
    from srcli.jobs.folder import FolderOptions, FolderRun
    from srcli.jobs.plan import Plan
    from srcli.jobs.report import Engine, PictureResult, Report
    from srcli.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Network:
    """What shall run."""

    model: str
    backend: str
    precision: str
    device: str
    tile: int | None
    exact_halo: bool
    ensemble: bool
    threads: int


@dataclass(frozen=True, slots=True)
class Files:
    """What it shall run on, and where the results go."""

    inputs: list[str]
    out: Path
    recursive: bool
    format: str | None


@dataclass(frozen=True, slots=True)
class Telling:
    """What the user wants to be told."""

    quiet: bool
    as_json: bool
    report: Path | None
    dry_run: bool


def run(files: Files, network: Network, options: "FolderOptions", telling: Telling) -> int:
    """The whole command; returns its exit code."""
    from srcli.interrupt import Interrupt

    plan = _plan(files, network, telling)
    upscalers = _load(network, plan, options, telling)
    with Interrupt() as interrupt:  # a request to terminate ends the run as Ctrl-C does, and both are told
        report = _work(plan, upscalers, options, telling, interrupt)
        _tell(report, plan, options, telling)
    return report.exit_code


def _tell(report: "Report", plan: "Plan", options: "FolderOptions", telling: Telling) -> None:
    """What happened, wherever it is wanted."""
    from srcli.jobs.report import write_report

    if telling.report is not None:
        write_report(report, telling.report)
    if telling.as_json:
        product(report.to_json())
    if not telling.quiet:
        for line in _summary(report, plan.out, overwrite=options.overwrite):
            talk(line)


def _plan(files: Files, network: Network, telling: Telling) -> "Plan":
    """What to read and where to write, with everything refused that must not start."""
    from srcli.jobs.plan import check_report, plan

    made = plan(files.inputs, files.out, recursive=files.recursive, format=files.format)
    if telling.report is not None:
        check_report(telling.report, made.jobs)
    for problem in made.problems:
        show_error(problem.error.message, problem.error.hint)
    for note in () if telling.quiet else (*_left(made), *_alternative(network, made)):
        talk(f"note: {note}")
    return made


def _alternative(network: Network, plan: "Plan") -> Iterator[str]:
    """What suits JPEGs, where the default network is to work on some."""
    from srcli.io.pictures import SUFFIXES
    from srcli.models import auto

    jpegs = any(SUFFIXES.get(job.source.suffix.lower()) == "jpeg" for job in plan.jobs)
    if jpegs and network.model == auto.CLEAN and network.backend != "bicubic":
        yield (
            "mdsr suits clean pictures and sharpens JPEG blocks and noise as well; --model mdsr-photo "
            "removes them, --model auto decides picture by picture."
        )


def _left(plan: "Plan") -> Iterator[str]:
    """What lies in the input folders and is no input."""
    if plan.left_out is not None:
        yield f"{plan.left_out} is the output folder; the pictures in it are no inputs."
    for link in plan.passed_by:
        yield f"{link} leads to a folder that is searched already or holds one that is; not entered."
    if plan.unread:
        number, kinds = sum(many for _, many in plan.unread), ", ".join(kind for kind, _ in plan.unread)
        yield f"{count(number, 'picture')} of other kinds ({kinds}) left out; convert to TIFF or JPEG first."


def _load(network: Network, plan: "Plan", options: "FolderOptions", telling: Telling) -> "list[Upscaler]":
    """The network for the first picture, on each device if all get a picture; none if there is no picture."""
    from srcli.backends.several import split
    from srcli.jobs.plan import first_factor

    if not plan.jobs:
        return []
    scale, devices = first_factor(plan.jobs, options.size), split(network.device)
    if len(plan.jobs) < len(devices):
        return [_upscaler(network, network.device, scale, telling)]
    return [_upscaler(network, device, scale, telling) for device in devices]


def _upscaler(network: Network, device: str, scale: float, telling: Telling) -> "Upscaler":
    from srcli.backends.base import say_nothing
    from srcli.upscaler import Upscaler

    return Upscaler(
        network.model,
        scale,
        backend=network.backend,
        precision=network.precision,
        device=device,
        tile=network.tile,
        halo=_exact_halo(network) if network.exact_halo else None,
        ensemble=network.ensemble,
        threads=network.threads,
        tell=say_nothing if telling.quiet else talk,
    )


def _exact_halo(network: Network) -> int | None:
    """How far the model sees, at the scale where it sees farthest; None for bicubic, always exact."""
    from srcli.models.auto import models
    from srcli.models.catalog import resolve, scales

    if "bicubic" in (network.backend, network.model):
        return None
    each = [(model, scale) for model in models(network.model) for scale in scales(model)]
    return max(resolve(model, scale).spec.exact_halo for model, scale in each)


def _work(
    plan: "Plan",
    upscalers: "list[Upscaler]",
    options: "FolderOptions",
    telling: Telling,
    interrupt: "Interrupt",
) -> "Report":
    """Do it, or foresee it, and collect what happened."""
    from srcli.jobs.report import Report

    begin = perf_counter()
    results, interrupted = [problem.result() for problem in plan.problems], False
    if telling.dry_run:
        results += _foresee(plan, options, telling, interrupt)
    elif upscalers:
        run = _upscale(plan, upscalers, options, telling, interrupt)
        results, interrupted = results + run.results, run.interrupted
    return Report(_engine(upscalers), results, perf_counter() - begin, interrupted)


def _upscale(
    plan: "Plan",
    upscalers: "list[Upscaler]",
    options: "FolderOptions",
    telling: Telling,
    interrupt: "Interrupt",
) -> "FolderRun":
    from srcli.cli.live import Teller, screen
    from srcli.jobs.folder import FolderRun

    view = screen(quiet=telling.quiet)
    paths = not (telling.as_json or telling.quiet or sys.stdout.isatty())
    try:
        teller = Teller(view, notes=not telling.quiet, paths=paths)
        run = FolderRun(plan.jobs, upscalers[0], options, teller, upscalers[1:], lambda: interrupt.wanted)
        return run.run()
    finally:
        view.close()


def _foresee(
    plan: "Plan", options: "FolderOptions", telling: Telling, interrupt: "Interrupt"
) -> list["PictureResult"]:
    """What would happen to each picture, a line each on stdout."""
    from srcli.jobs.folder import foresee
    from srcli.jobs.report import Status

    results = []
    for job in plan.jobs:
        if interrupt.wanted:
            raise KeyboardInterrupt
        results.append(foresee(job, options))
    for result in results:
        if result.status is Status.FAILED:
            show_error(result.error, result.hint)
        elif not telling.as_json:
            product(printable(_line(result)))
    return results


def _line(result: "PictureResult") -> str:
    """One picture of a dry run."""
    if result.input_size is None or result.output_size is None:
        return f"{result.input} -> {result.output} (there already)"
    sizes = [f"{width}×{height}" for height, width in (result.input_size, result.output_size)]
    return f"{result.input} {sizes[0]} -> {result.output} {sizes[1]}"


def _engine(upscalers: "list[Upscaler]") -> "Engine":
    from srcli.jobs.report import Engine
    from srcli.models.auto import name_of

    if not upscalers:
        return Engine("", "", "", "")
    first, info = upscalers[0], upscalers[0].info
    devices = ", ".join(upscaler.info.device for upscaler in upscalers)
    notes = tuple(dict.fromkeys(note for upscaler in upscalers for note in upscaler.notes))
    reason = first.reason if len(upscalers) == 1 else f"{first.reason}; a picture each on {devices}"
    return Engine(name_of(first.model, first.spec), info.backend, devices, info.precision, reason, notes)


def _summary(report: "Report", out: Path, *, overwrite: bool) -> list[str]:
    """Where the pictures are and what made them, then what else there is to know."""
    from srcli.jobs.report import Status

    engine = report.engine
    lines = [f"note: {note}" for note in engine.notes]
    parts = []
    if written := report.count(Status.WRITTEN):
        megapixels = sum(picture.megapixels for picture in report.pictures)
        work = f"{megapixels:.3g} MP in {duration(report.seconds)}"
        parts.append(f"{_are(written)} in {out} ({work}), made by {_makers(report)}")
    if planned := report.count(Status.PLANNED):
        parts.append(
            f"{count(planned, 'picture')} would go to {out}, made by {engine.model}, {engine.reason}"
        )
    if skipped := report.count(Status.SKIPPED):
        parts.append(
            f"{_are(skipped)} in {out} already, whatever made {_them(skipped)} (--overwrite replaces)"
        )
    if failed := report.count(Status.FAILED):
        parts.append(f"{failed} failed")
    if report.interrupted:
        left = report.count(Status.PENDING)
        rest = "older results of these are as they were" if overwrite else "the same command goes on"
        parts.append(f"interrupted with {left} left; {rest}")
    return [*lines, "; ".join(parts) + "."]


def _makers(report: "Report") -> str:
    """The networks behind the written pictures, and where they ran; bicubic where none had to."""
    names = list(dict.fromkeys(picture.made.model for picture in report.pictures if picture.made))
    reason = [report.engine.reason] if report.engine.model in names or names != ["bicubic"] else []
    return ", ".join([" and ".join(names), *reason])


def _them(number: int) -> str:
    return "it" if number == 1 else "them"


def _are(number: int) -> str:
    return f"{count(number, 'picture')} {'is' if number == 1 else 'are'}"
