"""`srcli upscale`: pictures in, larger pictures out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.units import default_memory, parse_bytes
from srcli.cli.upscaling import Files, Network, Telling, run
from srcli.errors import UsageError

if TYPE_CHECKING:
    from srcli.jobs.sizes import SizeRequest


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS", help="Pictures, folders of pictures, or patterns such as 'holiday/*.jpg'."
        ),
    ],
    scale: Annotated[
        float | None,
        typer.Option(
            "-s",
            "--scale",
            metavar="NUMBER",
            help="Output size / input size, any number from 1 to 16. [default: 4]",
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
            help="A family (mdsr, edsr: its best, for clean pictures), mdsr-photo (for JPEG blocks, noise, "
            "blur), auto (of mdsr and mdsr-photo what suits each picture), any model, or an .onnx file.",
        ),
    ] = "mdsr",
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="Output folder; for one picture also a file name."
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
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(metavar="NAME", help="png, jpeg, webp, tiff, bmp or avif. [default: as the input]"),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Quality of lossy formats, 1 to 100.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist; otherwise they are skipped.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Pictures in work at once may take this much, e.g. 512M. [default: 2G, at most RAM/4]",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "-j", "--workers", min=1, max=64, metavar="N", help="Threads that decode, and that encode."
        ),
    ] = 2,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what happened to each picture as JSON.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report on stdout.")] = False,
) -> None:
    """Upscale pictures.

    Writes each result to the output folder under the name of its input. Results that are already
    there are skipped, so the same command continues an interrupted run. Paths of written files go to
    stdout when it is not a terminal; everything else goes to stderr.

    Exit code: 0 all well, 1 some pictures failed, 2 wrong usage, 130 interrupted.
    """
    from srcli.jobs.folder import FolderOptions

    size = _size(scale, width, height, long_edge)
    budget = parse_bytes(memory) if memory else default_memory()
    options = FolderOptions(size, quality, overwrite, budget, workers)
    network = Network(model, backend, precision, device, tile, exact_halo, ensemble, threads)
    _check(inputs, out, report)
    files = Files(inputs, Path(out), recursive, format)
    telling = Telling(quiet, as_json, report, dry_run)
    raise typer.Exit(run(files, network, options, telling))


def _check(inputs: list[str], out: str, report: Path | None) -> None:
    """Refuse names that would mean the current folder, or a file that nobody wants."""
    if "" in inputs:
        raise UsageError("An input is empty.", "Give files, folders or patterns; is a variable unset?")
    if not out:
        raise UsageError("The output folder is empty.", "Give its name with -o; is a variable unset?")
    if str(report) == "-":
        raise UsageError("--report writes a file.", "Give its name; --json prints the report on stdout.")


def _size(scale: float | None, width: int | None, height: int | None, long_edge: int | None) -> "SizeRequest":
    from srcli.jobs.sizes import SizeRequest

    if scale is not None and (width or height or long_edge):
        raise UsageError("-s cannot be combined with --width, --height or --long-edge.", "Keep one of them.")
    return SizeRequest(4.0 if scale is None else scale, width, height, long_edge)
