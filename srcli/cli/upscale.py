"""`srcli upscale`: pictures and films in, larger ones out."""

import os
import re
import sys
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import Messages
from srcli.cli.upscale_run import run
from srcli.errors import UsageError
from srcli.settings import DEFAULT_MEMORY, ON_ERROR, FilmSettings, OnError, Settings

if TYPE_CHECKING:
    from srcli.io.remote import Location
    from srcli.jobs.shard import Shard

_FILMS = "Films"
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
        _check_cluster(cluster, settings, [*inputs, out], shard)
    if piped:
        _check_pipe(as_json=as_json, preview=preview is not None, dry_run=dry_run)
    messages: Messages = context.obj
    messages.quiet = quiet
    with ExitStack() as pipes:
        inputs, folder = _from_pipes(inputs, out, pipes)
        ends = out.endswith(("/", os.sep))  # which no Path keeps
        for_films = _given_for_films(context)
        raise typer.Exit(
            run(
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


def _check_cluster(where: str, settings: Settings, places: list[str], shard: str | None) -> None:
    """Refuse what no cluster does, before anything is searched or loaded."""
    from srcli.io.remote import Remote, location
    from srcli.jobs.cluster import check

    check(where)
    if "-" in places or settings.film.preview:
        what = "- in a pipe" if "-" in places else "--preview"
        raise UsageError(f"--cluster is not for {what}.", "Leave it out.")
    for place in map(location, places):
        if isinstance(place, Remote) and (place.access or place.query):
            raise UsageError(
                f"{place}: with --cluster, a URL has no user and no query, which would be sent to all nodes.",
                "Leave them out; each node has credentials of its own.",
            )
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
