"""A run of `srcli upscale`: plan, load, work, report."""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO

from srcli.cli.console import (
    FolderProgress,
    Messages,
    count,
    printable,
    product,
    product_stream,
    screen,
    show_error,
    talk,
)
from srcli.cli.upscale_summary import foreseen, left_out, loaded, noun, summary
from srcli.errors import Interrupt, UsageError
from srcli.settings import Settings

if TYPE_CHECKING:
    from srcli.io.remote import Location
    from srcli.jobs.cluster_run import ClusterRun
    from srcli.jobs.film import FilmRun
    from srcli.jobs.outputs import Job
    from srcli.jobs.plan import Plan
    from srcli.jobs.report import PictureResult
    from srcli.jobs.shard import Shard
    from srcli.upscaler import Upscaler


def run(
    inputs: list[str],
    out: "Location",
    as_folder: bool,
    settings: Settings,
    messages: Messages,
    recursive: bool,
    report: str | None,
    dry_run: bool,
    as_json: bool,
    for_films: list[str],
    shard: "Shard | None",
    cluster: str | None,
) -> int:
    """Plan, load, work, report; returns the exit code."""
    from srcli.io.films.signatures import ANIMATED
    from srcli.io.remote import location
    from srcli.jobs.plan import check_report, plan
    from srcli.jobs.report import Report, problem, write_report

    lossless = settings.film.lossless and (as_folder or out.suffix.lower() not in ANIMATED)
    container = settings.film.container or ("mkv" if lossless else None)
    sheet = out if settings.film.preview and out.suffix.lower() == ".png" and not as_folder else None
    named = out if sheet is None else out.parent / f"{out.stem}.{container or 'mkv'}"
    planned = plan(
        inputs,
        named,
        recursive=recursive,
        format=settings.format,
        container=container,
        as_folder=as_folder,
        shard=shard,
    )
    if settings.film.preview:
        planned = _films_only(planned, sheet or out, messages)
    place = None if report is None else location(report)
    if place is not None:
        check_report(place, planned.jobs)
    for one in planned.problems:
        show_error(one.error.message, one.error.hint)
    for text in left_out(planned):
        messages.note(text)
    if shard is not None and not planned.jobs and planned.elsewhere:
        messages.note(f"shard {shard} holds none of the {count(planned.elsewhere, 'file')}: nothing to do.")
    if for_films and planned.jobs and shard is None and not any(job.film for job in planned.jobs):
        messages.note(f"no effect without films: {', '.join(for_films)}.")
    parts = _load(settings, planned)
    upscalers = parts[0].upscalers or parts[1].upscalers
    with Interrupt() as interrupt:  # SIGTERM ends the run as Ctrl-C does, and both are reported
        begin, interrupted, full = perf_counter(), False, False
        results = [problem(one.path, one.error) for one in planned.problems]
        if dry_run:
            results += _foresee(planned, parts, interrupt, as_json)
        elif upscalers:
            work = _preview if settings.film.preview else partial(_work, where=cluster)
            more, interrupted, full = work(planned, parts, messages, interrupt, as_json)
            results += more
        seconds, part = perf_counter() - begin, None if shard is None else str(shard)
        found = Report(loaded(upscalers, messages), results, seconds, interrupted, full, part)
        if place is not None:
            write_report(found, place)
        if as_json:
            product(found.to_json())
        if results and not messages.quiet:
            where = Path("stdout") if settings.film.pipe else planned.out
            talk(summary(found, where, settings, noun(planned, settings)) + ".")
    return found.exit_code


def _films_only(plan: "Plan", out: "Location", messages: Messages) -> "Plan":
    """The same without pictures, of which there are no previews."""
    films = tuple(job for job in plan.jobs if job.film)
    if not films and plan.jobs:
        raise UsageError("--preview is for films, and there is none.", "Leave it out: pictures take seconds.")
    if len(films) < len(plan.jobs):
        messages.note(f"{count(len(plan.jobs) - len(films), 'picture')} left out: --preview is for films.")
    return replace(plan, jobs=films, out=out)


@dataclass(frozen=True, slots=True)
class _Part:
    """The pictures of a run, or its films, with their settings and the networks loaded for them.

    Attributes:
        upscalers: one a device; empty without jobs.
    """

    jobs: "tuple[Job, ...]"
    settings: Settings
    upscalers: "list[Upscaler]"


def _load(settings: Settings, plan: "Plan") -> tuple[_Part, _Part]:
    """Pictures and films, with the networks for them; the same ones where "auto" means the same for both."""
    from srcli.jobs.plan import for_films

    pictures, films = (tuple(job for job in plan.jobs if job.film is film) for film in (False, True))
    of_films = for_films(settings) if films else settings
    if of_films == settings:
        upscalers = _networks(settings, plan.jobs)
        return _Part(pictures, settings, upscalers), _Part(films, settings, upscalers)
    return (
        _Part(pictures, settings, _networks(settings, pictures)),
        _Part(films, of_films, _networks(of_films, films)),
    )


def _networks(settings: Settings, jobs: "Sequence[Job]") -> "list[Upscaler]":
    """The network for the first of some jobs, on each device if all get one; none if there is no job."""
    from srcli.backends.devices import split
    from srcli.jobs.plan import first_factor
    from srcli.upscaler import Upscaler

    if not jobs:
        return []
    settings = replace(settings, scale=first_factor(jobs, settings))
    devices = split(settings.device)
    if len(jobs) < len(devices) and not any(job.film for job in jobs):
        return [Upscaler.from_settings(settings)]
    return [Upscaler.from_settings(replace(settings, device=device)) for device in devices]


def _work(
    plan: "Plan",
    parts: tuple[_Part, _Part],
    messages: Messages,
    interrupt: Interrupt,
    as_json: bool,
    *,
    where: str | None,
) -> tuple[list["PictureResult"], bool, bool]:
    """Do it, here or on a cluster: results, and whether it was interrupted, or found the disk full."""
    piped = parts[1].settings.film.pipe is not None
    paths = not (as_json or messages.quiet or piped or sys.stdout.isatty())
    with (
        closing(screen(quiet=messages.quiet)) as shown,
        messages.above(shown.line),
        product_stream() if piped else nullcontext() as sink,
    ):
        progress = FolderProgress(shown, len(plan.jobs), notes=not messages.quiet, paths=paths)
        if where is None:
            results, interrupted, full = _here(parts, progress, interrupt, sink)
        else:
            results, interrupted, full = _on_cluster(where, parts, progress, interrupt)
    order = {job.source: number for number, job in enumerate(plan.jobs)}
    results.sort(key=lambda result: order[result.input])
    return results, interrupted, full


def _here(
    parts: tuple[_Part, _Part], progress: FolderProgress, interrupt: Interrupt, sink: BinaryIO | None
) -> tuple[list["PictureResult"], bool, bool]:
    """On this machine: as `_work`."""
    from srcli.jobs.folder import FolderRun
    from srcli.jobs.report import Status

    (pictures, films), stops = parts, lambda: interrupt.wanted
    results, interrupted, full = list["PictureResult"](), False, False
    if pictures.jobs:
        run = FolderRun(pictures.jobs, pictures.upscalers, pictures.settings, progress, stops).run()
        results, interrupted, full = run.results, run.interrupted, run.full
    else:
        progress.start()
    if films.jobs:
        from srcli.jobs.film import FilmRun, run_films

        def stop() -> bool:
            return interrupted or full or interrupt.wanted

        runs = [FilmRun(job, films.upscalers, films.settings, progress, stop, sink) for job in films.jobs]
        results += run_films(runs)
        full = full or any(one.full for one in runs)
        interrupted = interrupted or (not full and any(one.status is Status.PENDING for one in results))
    return results, interrupted, full


def _on_cluster(
    where: str, parts: tuple[_Part, _Part], progress: FolderProgress, interrupt: Interrupt
) -> tuple[list["PictureResult"], bool, bool]:
    """On the nodes of a cluster, pictures and then films: as `_work`."""
    from srcli.jobs.cluster import connected
    from srcli.jobs.cluster_run import ClusterRun
    from srcli.jobs.report import pending

    results, interrupted, full = list["PictureResult"](), False, False

    def stop() -> bool:
        return interrupt.wanted or full

    with connected(where) as cluster:
        for part in (part for part in parts if part.jobs):
            if stop():
                results += [pending(job) for job in part.jobs]
                interrupted = interrupted or not full
                continue
            films = part.jobs[0].film
            run = ClusterRun(
                cluster,
                () if films else part.jobs,
                part.upscalers[0],
                part.settings,
                progress,
                stop,
                progress.nodes,
            )
            if films:
                run.films = _segmented(part, run, progress, stop)
            run.run()
            results += run.results
            full = full or run.full or any(film.full for film in run.films)
            interrupted = interrupted or run.interrupted
    return results, interrupted, full


def _segmented(
    part: _Part, run: "ClusterRun", progress: FolderProgress, stop: Callable[[], bool]
) -> "list[FilmRun]":
    """Films whose segments are closed by a run on a cluster."""
    from srcli.jobs.film import FilmRun

    def stops() -> bool:
        return stop() or run.full

    close = run.close_segments
    return [
        FilmRun(job, part.upscalers, part.settings, progress, stops, elsewhere=close) for job in part.jobs
    ]


def _preview(
    plan: "Plan",
    parts: tuple[_Part, _Part],
    messages: Messages,
    interrupt: Interrupt,
    as_json: bool,
) -> tuple[list["PictureResult"], bool, bool]:
    """A contact sheet of each film: results, and as `_work`."""
    from srcli.jobs.film_preview import preview, sheet_of

    results = []
    paths = not (as_json or messages.quiet or sys.stdout.isatty())
    with closing(screen(quiet=messages.quiet)) as shown, messages.above(shown.line):
        progress = FolderProgress(shown, len(plan.jobs), notes=not messages.quiet, paths=paths)
        for job in plan.jobs:
            named = plan.out.suffix.lower() == ".png" and job.target.parent != plan.out
            place = plan.out if named else sheet_of(job.target)
            films = parts[1]
            results.append(preview(job, place, films.upscalers[0], films.settings, lambda: interrupt.wanted))
            progress.finished(results[-1])
    return results, interrupt.wanted, False


def _foresee(
    plan: "Plan", parts: tuple[_Part, _Part], interrupt: Interrupt, as_json: bool
) -> list["PictureResult"]:
    """What would happen to each picture, a line each on stdout."""
    from srcli.jobs.preflight import Preflight
    from srcli.jobs.report import Status
    from srcli.jobs.staging import Staging, release

    if not plan.jobs:
        return []
    pictures, films = parts
    if films.jobs:
        from srcli.jobs import film_plan

    first = (pictures.upscalers or films.upscalers)[0]
    results, preflight = [], Preflight(first, pictures.settings)
    coming = Staging(pictures.jobs, pictures.settings, preflight, dry=True)
    with closing(coming):
        for job in plan.jobs:
            if interrupt.wanted:
                raise KeyboardInterrupt
            if job.film:
                results.append(film_plan.foresee(job, films.upscalers[0], films.settings))
            elif job.remote:
                staged, outlook = coming.next(lambda fetched: None)
                results.append(outlook.result)
                release(staged)
            else:
                results.append(preflight.look(job).result)
    preflight.check_space()
    for result in results:
        if result.status is Status.FAILED:
            show_error(result.error, result.hint)
        elif not as_json:
            product(printable(foreseen(result)))
            for note in result.notes:
                product(printable(f"  {note}"))
    return results
