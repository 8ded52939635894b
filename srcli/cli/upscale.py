"""`srcli upscale`: pictures and films in, larger ones out."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from srcli.cli.console import (
    FolderProgress,
    Messages,
    count,
    duration,
    printable,
    product,
    product_stream,
    screen,
    show_error,
    talk,
)
from srcli.errors import Interrupt, UsageError
from srcli.settings import DEFAULT_MEMORY, ON_ERROR, FilmSettings, OnError, Settings

if TYPE_CHECKING:
    from srcli.io.remote import Location
    from srcli.jobs.cluster_run import ClusterRun
    from srcli.jobs.film import FilmRun
    from srcli.jobs.inputs import Job
    from srcli.jobs.plan import Plan
    from srcli.jobs.report import Loaded, PictureResult, Report
    from srcli.jobs.shard import Shard
    from srcli.upscaler import Upscaler

_FILMS = "Films"
_NAMED = 3
"""Files of one kind that are named at most."""
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def upscale(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS",
            help="Pictures, films, folders of them, patterns such as 'holiday/*.jpg', or URLs such as "
            "s3://bucket/photos/; - reads stdin.",
        ),
    ],
    scale: Annotated[
        float | None,
        typer.Option(
            "-s",
            "--scale",
            metavar="NUMBER",
            help="Output size / input size, any number from 1 to 16; 1 cleans with mdsr-photo. [default: 4]",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Output width; alone, it keeps the shape.")
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="PIXELS", help="Output height; alone, it keeps the shape. Both: exactly that size."
        ),
    ] = None,
    long_edge: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Size of the longer output edge.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto (of the next two what suits each picture; films without a GPU: auto-fast), mdsr "
            "(the best for clean pictures), mdsr-photo (for JPEG blocks, noise, blur, hard edges), auto-fast "
            "(fast or fast-photo: likewise, a ninth of the work), any other model, or an .onnx file.",
        ),
    ] = "auto",
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Output folder or URL; for one picture or film also a file name (without / at its end); - "
            "sends one film to stdout.",
        ),
    ] = "upscaled",
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto (the fastest installed), tensorrt (trt), openvino, onnxruntime, torch or bicubic.",
        ),
    ] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N, several as cuda:0,1, or all.")
    ] = "auto",
    tile: Annotated[
        int | None,
        typer.Option(min=1, metavar="PIXELS", help="Tile edge in input pixels; smaller takes less memory."),
    ] = None,
    exact_halo: Annotated[
        bool,
        typer.Option("--exact-halo", help="Tiles overlap by all the network sees: slower, no pixel differs."),
    ] = False,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Mean over 8 flips and rotations: 8 times slower, a bit better."),
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, metavar="N", help="CPU threads of the network; 0: all cores.")
    ] = 0,
    recursive: Annotated[
        bool,
        typer.Option(
            "-r",
            "--recursive",
            help="Also folders in folders, and links to folders; the output mirrors them.",
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only the I-th of N shares of a folder, for many machines; auto: as Slurm, Kubernetes, AWS "
            "Batch or SkyPilot says. A converted a.jpg is then named a.jpg.png.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Share the work out by Ray: auto (the cluster at $RAY_ADDRESS, or this machine's) or local.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(metavar="NAME", help="png, jpeg, webp, tiff, bmp or avif. [default: as the input]"),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Quality of lossy formats, 1 to 100.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist, whatever made them.")
    ] = False,
    trust_names: Annotated[
        bool,
        typer.Option("--trust-names", help="Skip what has an output, without a look at what made it."),
    ] = False,
    provenance: Annotated[
        bool,
        typer.Option(
            "--provenance/--no-provenance",
            help="Write into each output's XMP what made it, by which a later run knows what is done.",
        ),
    ] = True,
    keep_dpi: Annotated[
        bool,
        typer.Option(
            "--keep-dpi", help="Leave the resolution; else a page stays as large on paper as it was."
        ),
    ] = False,
    keep_times: Annotated[
        bool, typer.Option("--times/--no-times", help="Give results the dates of their inputs.")
    ] = True,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Memory of the whole process, e.g. 800M or 4G; what needs more goes through scratch files "
            "beside the output. [default: 1G]",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "-j", "--workers", min=1, max=64, metavar="N", help="Threads that decode, and that encode."
        ),
    ] = 2,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="h264, h265, av1, vp9, ffv1 or an encoder by name. [default: what plays everywhere]",
            rich_help_panel=_FILMS,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(metavar="N", help="Constant quality; smaller is better.", rich_help_panel=_FILMS),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Speed of the encoder.", rich_help_panel=_FILMS)
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="FFV1 in Matroska.", rich_help_panel=_FILMS)
    ] = False,
    container: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="mkv, mp4, mov, webm, gif, apng or webp; in a pipe mkv or y4m. [default: as the input]",
            rich_help_panel=_FILMS,
        ),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="repeat the frame before a damaged one, skip it, or stop there.",
            rich_help_panel=_FILMS,
        ),
    ] = "repeat",
    deinterlace: Annotated[
        bool,
        typer.Option(
            "--deinterlace", help="Make whole frames of interlaced fields (bwdif).", rich_help_panel=_FILMS
        ),
    ] = False,
    still: Annotated[
        int,
        typer.Option(
            min=0,
            max=255,
            metavar="N",
            help="Parts that differ by at most N of 255 from the frame before keep its result. [default: 0, "
            "equal parts only]",
            show_default=False,
            rich_help_panel=_FILMS,
        ),
    ] = 0,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Begin here: seconds, or 1:30, or 1:02:03.5.", rich_help_panel=_FILMS
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="End before this time.", rich_help_panel=_FILMS)
    ] = None,
    keep_partial: Annotated[
        bool,
        typer.Option(
            "--keep-partial",
            help="If the run ends early, join what is done to FILM.partial.mkv; the same command goes on.",
            rich_help_panel=_FILMS,
        ),
    ] = False,
    preview: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Only a contact sheet, FILM.preview.png: parts of N frames, by bicubic and by the network.",
            rich_help_panel=_FILMS,
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write what happened to each picture as JSON; a URL is a file, too."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report on stdout.")] = False,
) -> None:
    """Upscale pictures and films.

    Writes each result to the output folder under the name of its input. Results that are already there are
    skipped if the same input, model and settings made them, so the same command continues an interrupted run.
    Paths of written files go to stdout when it is not a terminal; everything else goes to stderr.

    Exit code: 0 all well, 1 some pictures failed, 2 wrong usage, 130 interrupted.
    """
    if scale is not None and (width or height or long_edge):
        raise UsageError("-s cannot be combined with --width, --height or --long-edge.", "Keep one of them.")
    piped = out == "-"
    settings = Settings(
        model=model,
        scale=4.0 if scale is None else scale,
        width=width,
        height=height,
        long_edge=long_edge,
        backend=backend,
        precision=precision,
        device=device,
        threads=threads,
        tile=tile,
        halo="exact" if exact_halo else None,
        ensemble=ensemble,
        memory=parse_bytes(memory) if memory else DEFAULT_MEMORY,
        format=format,
        quality=quality,
        overwrite=overwrite,
        trust_names=trust_names,
        provenance=provenance,
        keep_dpi=keep_dpi,
        keep_times=keep_times,
        workers=workers,
        film=FilmSettings(
            codec,
            crf,
            preset,
            lossless or (piped and codec is None),
            None if piped else container,
            _way_with_damage(on_error),
            deinterlace,
            still,
            parse_time(start),
            parse_time(end),
            keep_partial,
            preview or 0,
            (container or "mkv") if piped else None,
        ),
    )
    _check(inputs, out, report)
    share = None if shard is None else _shard(shard, piped or "-" in inputs, preview is not None)
    if cluster is not None:
        _check_cluster(cluster, settings, piped or "-" in inputs, shard)
    if piped:
        _check_pipe(as_json=as_json, preview=preview is not None, dry_run=dry_run)
    messages: Messages = context.obj
    messages.quiet = quiet
    with ExitStack() as pipes:
        inputs, folder = _from_pipes(inputs, out, pipes)
        ends = out.endswith(("/", os.sep))  # which no Path keeps
        for_films = _given_for_films(context)
        raise typer.Exit(
            _run(
                inputs,
                folder,
                ends,
                settings,
                messages,
                recursive,
                report,
                dry_run,
                as_json,
                for_films,
                share,
                cluster,
            )
        )


def _given_for_films(context: typer.Context) -> list[str]:
    """The options on the command line that only films have."""
    return [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if getattr(parameter, "rich_help_panel", None) == _FILMS
        and (source := context.get_parameter_source(str(parameter.name))) is not None
        and source.name == "COMMANDLINE"
    ]


def _check(inputs: list[str], out: str, report: str | None) -> None:
    """Refuse names that would mean the current folder, or a file that nobody wants."""
    if "" in inputs:
        raise UsageError("An input is empty.", "Give files, folders or patterns; is a variable unset?")
    if not out:
        raise UsageError("The output folder is empty.", "Give its name with -o; is a variable unset?")
    if report == "-":
        raise UsageError("--report writes a file.", "Give its name; --json prints the report on stdout.")


def _shard(text: str, piped: bool, preview: bool) -> "Shard":
    """The share of the folder that this process has."""
    from srcli.jobs.shard import parse

    if piped:
        raise UsageError(
            "--shard is for folders, not for - in a pipe.", "Name an input and an output folder."
        )
    if preview:
        raise UsageError("--preview is not made in shards.", "Leave out --shard: previews take seconds.")
    return parse(text, os.environ)


def _check_cluster(where: str, settings: Settings, piped: bool, shard: str | None) -> None:
    """Refuse what no cluster does, before anything is searched or loaded."""
    from srcli.jobs.cluster import check

    check(where)
    if piped or settings.film.preview:
        what = "- in a pipe" if piped else "--preview"
        raise UsageError(f"--cluster is not for {what}.", "Leave it out.")
    if shard is not None:
        raise UsageError("--shard and --cluster both share out the work.", "Keep one of them.")
    if settings.device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {settings.device} is of one machine; with --cluster each process has its own.",
            "Use --device cuda, cpu or auto.",
        )


def _check_pipe(*, as_json: bool, preview: bool, dry_run: bool) -> None:
    """Refuse what does not go together with a film on stdout."""
    if as_json or preview:
        option = "--json" if as_json else "--preview"
        raise UsageError(f"{option} and a film cannot both go to stdout.", "Name a file with -o.")
    if sys.stdout.isatty() and not dry_run:
        raise UsageError("A film cannot go to a terminal.", "Pipe it into a program, or name a file with -o.")


def _from_pipes(inputs: list[str], out: str, pipes: ExitStack) -> "tuple[list[str], Location]":
    """Files in place of stdin and stdout, which last as long as `pipes`."""
    from srcli.io.remote import location

    if "-" in inputs:
        from srcli.io.films.pipes import spooled
        from srcli.io.storage import existing

        there = location("." if out == "-" else out)

        if len(inputs) > 1:
            raise UsageError("- is one film on stdin, alone.", "Give other inputs in a run of their own.")
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("Nothing is piped into stdin.", "Put a program before the pipe, or name a file.")
        folder = existing(there) if isinstance(there, Path) and out != "-" else Path(gettempdir())
        folder = folder if folder.is_dir() else folder.parent
        inputs = [str(pipes.enter_context(spooled(sys.stdin.buffer, folder)))]
    if out != "-":
        return inputs, location(out)
    place = pipes.enter_context(TemporaryDirectory(prefix="srcli-stdout-", ignore_cleanup_errors=True))
    return inputs, Path(place, "stdout.mkv")


def parse_bytes(text: str) -> int:
    """ "512M", "1.5G", "2GiB" or plain bytes to a number of bytes (powers of 1024).

    Raises:
        UsageError: it is not such a number, or less than one byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** _POWERS[match[2].upper()]) if match else 0
    if size < 1:
        raise UsageError(f"--memory {text!r} is not an amount of memory.", "Write it like 512M or 2G.")
    return size


def parse_time(text: str | None) -> Fraction | None:
    """ "90", "1:30" or "1:02:03.5" to seconds.

    Raises:
        UsageError: it is no time, or has 60 or more minutes or seconds behind a colon.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no time.", "Write it like 90, 1:30 or 1:02:03.5.")
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    if (match[2] and seconds >= 60) or (match[1] and minutes >= 60):
        raise UsageError(
            f"{text!r} is no time: behind a colon, minutes and seconds are below 60.",
            "Write it like 90, 1:30 or 1:02:03.5.",
        )
    return 3600 * hours + 60 * minutes + seconds


def _way_with_damage(name: str) -> OnError:
    """The same word, if it is one of those known."""
    for known in ON_ERROR:
        if name == known:
            return known
    raise UsageError(f"--on-error {name!r} is not known.", f"Choose from {', '.join(ON_ERROR)}.")


def _run(
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
        if not isinstance(out, Path):
            raise UsageError("--preview makes a local file.", "Name a local folder with -o.")
        planned = _films_only(planned, sheet or out, messages)
    place = None if report is None else location(report)
    if place is not None:
        check_report(place, planned.jobs)
    for one in planned.problems:
        show_error(one.error.message, one.error.hint)
    for text in _left_out(planned):
        messages.note(text)
    if shard is not None and not planned.jobs and planned.elsewhere:
        messages.note(f"shard {shard} holds none of the {count(planned.elsewhere, 'file')}: nothing to do.")
    if for_films and planned.jobs and shard is None and not any(job.film for job in planned.jobs):
        messages.note(f"no effect without films: {', '.join(for_films)}.")
    if cluster is not None and any(job.remote for job in planned.jobs):
        raise UsageError(
            "--cluster works in folders that all nodes share, not in buckets.", "Use --shard for buckets."
        )
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
        found = Report(_loaded(upscalers, messages), results, seconds, interrupted, full, part)
        if place is not None:
            write_report(found, place)
        if as_json:
            product(found.to_json())
        if results and not messages.quiet:
            where = Path("stdout") if settings.film.pipe else planned.out
            talk(_summary(found, where, settings, _noun(planned, settings)) + ".")
    return found.exit_code


def _films_only(plan: "Plan", out: "Location", messages: Messages) -> "Plan":
    """The same without pictures, of which there are no previews."""
    films = tuple(job for job in plan.jobs if job.film)
    if not films and plan.jobs:
        raise UsageError("--preview is for films, and there is none.", "Leave it out: pictures take seconds.")
    if len(films) < len(plan.jobs):
        messages.note(f"{count(len(plan.jobs) - len(films), 'picture')} left out: --preview is for films.")
    return replace(plan, jobs=films, out=out)


def _noun(plan: "Plan", settings: Settings) -> str:
    films = sum(job.film for job in plan.jobs)
    if settings.film.preview:
        return "preview"
    return "picture" if not films else "film" if films == len(plan.jobs) else "file"


def _left_out(plan: "Plan") -> Iterator[str]:
    """What lies in the input folders and is no input."""
    from srcli.io.films.signatures import SUFFIXES
    from srcli.io.pictures import READ_ONLY_SUFFIXES

    if plan.left_out is not None:
        yield f"{plan.left_out} is the output folder; the pictures in it are no inputs."
    for link in plan.passed_by:
        yield f"{link} leads to a folder that is searched already or holds one that is; not entered."
    if plan.sound:
        names = ", ".join([*map(str, plan.sound[:_NAMED]), *(["..."] if len(plan.sound) > _NAMED else [])])
        yield f"{count(len(plan.sound), 'file')} with sound and no picture left out: {names}."
    films = [(kind, many) for kind, many in plan.unread if kind in SUFFIXES]
    phones = [(kind, many) for kind, many in plan.unread if kind in READ_ONLY_SUFFIXES]
    pictures = [one for one in plan.unread if one not in (*films, *phones)]
    for what, other, found, hint in (
        ("picture", " of other kinds", pictures, "convert to TIFF or JPEG first"),
        ("picture", "", phones, 'install what reads them with: pip install "srcli[heif]"'),
        ("film", "", films, 'install what reads them with: pip install "srcli[video]"'),
    ):
        if found:
            number, kinds = sum(many for _, many in found), ", ".join(kind for kind, _ in found)
            yield f"{count(number, what)}{other} ({kinds}) left out; {hint}."


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

    results, interrupted, full = list["PictureResult"](), False, False

    def stop() -> bool:
        return interrupt.wanted or full

    with connected(where) as cluster:
        for part in (part for part in parts if part.jobs):
            films = part.jobs[0].film
            run = ClusterRun(
                cluster, () if films else part.jobs, part.upscalers[0], part.settings, progress, stop
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
            assert isinstance(plan.out, Path), "previews are local"
            assert isinstance(job.target, Path), "previews are local"
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
            product(printable(_line(result)))
            for note in result.notes:
                product(printable(f"  {note}"))
    return results


def _line(result: "PictureResult") -> str:
    """One picture of a dry run."""
    from srcli.jobs.report import Status

    if result.status is Status.UNCHANGED:
        return f"{result.input} (unchanged)"
    if result.input_size is None or result.output_size is None:
        return f"{result.input} -> {result.output} ({result.status.value}: it is there)"
    sizes = [f"{width}×{height}" for height, width in (result.input_size, result.output_size)]
    return f"{result.input} {sizes[0]} -> {result.output} {sizes[1]}"


def _loaded(upscalers: "list[Upscaler]", messages: Messages) -> "Loaded":
    from srcli.jobs.report import Loaded
    from srcli.models.auto import name_of

    if not upscalers:
        return Loaded("", "", "", "")
    first, info = upscalers[0], upscalers[0].info
    devices = ", ".join(upscaler.info.device for upscaler in upscalers)
    reason = first.reason if len(upscalers) == 1 else f"{first.reason}; a picture each on {devices}"
    name = first.spec.name if first.bicubic else name_of(first.settings.model, first.spec)
    return Loaded(name, info.backend, devices, info.precision, reason, tuple(messages.kept))


def _summary(report: "Report", out: "Location", settings: Settings, noun: str) -> str:
    """Where the pictures are and what made them, then what else there is to know."""
    from srcli.jobs.report import Status

    loaded, parts = report.engine, []
    if written := report.count(Status.WRITTEN):
        megapixels = sum(picture.megapixels for picture in report.pictures)
        work = f"{megapixels:.3g} MP in {duration(report.seconds)}"
        parts.append(f"{_are(written, noun)} in {out} ({work}), made by {_makers(report)}")
    if planned := report.count(Status.PLANNED):
        parts.append(f"{count(planned, noun)} would go to {out}, made by {_by(loaded.model, loaded.reason)}")
    if skipped := report.count(Status.SKIPPED):
        why = "by name, unopened" if settings.trust_names else "made by the same input and settings"
        parts.append(f"{_are(skipped, noun)} in {out} already, {why}")
    if kept := report.count(Status.KEPT):
        parts.append(f"{count(kept, 'file')} in {out} left alone: nothing in them says that srcli made them")
    if left := report.count(Status.UNCHANGED):
        parts.append(
            f"nothing to do for {count(left, noun)}: of this size already, by a network that only enlarges"
        )
    if failed := report.count(Status.FAILED):
        parts.append(f"{failed} failed")
    if report.interrupted or report.disk_full:
        left, why = report.count(Status.PENDING), "the disk is full" if report.disk_full else "interrupted"
        rest = "older results of these are as they were" if settings.overwrite else "the same command goes on"
        parts.append(f"{why} with {left} left; {rest}")
    return "; ".join(parts)


def _makers(report: "Report") -> str:
    """The networks behind the written pictures, and where they ran; bicubic where none had to."""
    names = list(dict.fromkeys(picture.computed.model for picture in report.pictures if picture.computed))
    if names == ["bicubic"] != [report.engine.model]:
        return "bicubic"
    return _by(" and ".join(names), report.engine.reason)


def _by(names: str, reason: str) -> str:
    """What made pictures, where it ran and why; bicubic is its own backend, and named once."""
    return reason if names == "bicubic" and reason.startswith(names) else f"{names}, {reason}"


def _are(number: int, noun: str) -> str:
    return f"{count(number, noun)} {'is' if number == 1 else 'are'}"
