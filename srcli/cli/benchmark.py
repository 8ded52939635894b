"""`srcli benchmark`: how fast, how good and how large every engine is on this machine."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from srcli.cli.console import command_line, printable, product, table, talk
from srcli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from srcli.benchmark.report import Report
    from srcli.benchmark.subjects import Request

_ALL = "all"
_Value = TypeVar("_Value", int, str)
_MODELS = ("mdsr-baseline", "edsr-baseline")
_SIZE, _REPETITIONS, _STARTS, _TILE = 256, 10, 3, 1024
_QUICK_SIZE, _QUICK_REPETITIONS, _QUICK_STARTS = 64, 3, 1


def benchmark(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model, .onnx file or bicubic; may be given several times. [default: both baselines]"
        ),
    ] = None,
    scale: Annotated[
        list[int] | None,
        typer.Option("-s", "--scale", min=1, max=16, help="May be given several times. [default: 4]"),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="May be given several times. [default: all that work here]"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="fp32, bf16, fp16 or int8; may be given several times. [default: all the backend has]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    size: Annotated[
        list[int] | None,
        typer.Option(min=16, help="Side of the input; may be given several times. [default: 256]"),
    ] = None,
    tile: Annotated[
        int, typer.Option(min=16, help="Largest tile; larger inputs go through several, as upscale does it.")
    ] = _TILE,
    repetitions: Annotated[
        int | None, typer.Option(min=1, help="Rounds that count, after a warm-up. [default: 10]")
    ] = None,
    starts: Annotated[
        int | None,
        typer.Option(min=0, help="Fresh processes for start-up and memory; 0: none. [default: 3]"),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="HR pictures to measure quality on; without, a rendered chart."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute: one model, a small tile, few rounds.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="PATH", help="Also write everything as JSON.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="PATH", help="Also write the rows as CSV.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="PATH", help="Also write the table as Markdown.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="PATH", help="Also write a page with plots.")
    ] = None,
) -> None:
    """Measure start-up, speed, memory and quality of every engine that runs here.

    Start-up and peak memory in fresh processes, the time of a tile and its share of the machine's best, PSNR
    against fp32 and HR, and the time of a picture by stage; all engines run in turns. The table is on stdout.
    A failure costs only its own figures; reports are rewritten after each model.
    """
    files = {"json": json_file, "csv": csv_file, "markdown": markdown_file, "html": html_file}
    wanted = {kind: path for kind, path in files.items() if path is not None}
    _check_files(wanted)
    from srcli.benchmark.run import run
    from srcli.benchmark.subjects import Request, resolve

    request = Request(
        models=_each(model) or (_MODELS[:1] if quick else _MODELS),
        scales=_each(scale) or (4,),
        backends=_named(backend),
        precisions=_each(precision),
        device=device,
        sizes=_each(size) or (_QUICK_SIZE if quick else _SIZE,),
        tile=tile,
        repetitions=repetitions or (_QUICK_REPETITIONS if quick else _REPETITIONS),
        starts=(_QUICK_STARTS if quick else _STARTS) if starts is None else starts,
        pictures=pictures,
        threads=threads,
    )
    _check_pictures(request)
    report = run(request, resolve(request), command_line(sys.argv[1:]), partial(_write, files=wanted))
    for line in table(report.table):
        product(printable(line))
    for line in (report.summary, *report.facts, *(f"{kind}: {path}" for kind, path in wanted.items())):
        talk(line)
    for problem in report.problems:
        talk(f"failed: {problem}")
    if report.problems:
        raise typer.Exit(ExitCode.FAILED)


def _each(values: list[_Value] | None) -> tuple[_Value, ...]:
    """Each value once, in order."""
    return tuple(dict.fromkeys(values or ()))


def _named(backends: list[str] | None) -> tuple[str, ...]:
    """The backends asked for by name; none stands for all that work."""
    names = _each(backends)
    if _ALL in names and len(names) > 1:
        raise UsageError(f"--backend {_ALL} stands alone.", f"Leave out {_ALL}, or the names.")
    return () if names == (_ALL,) else names


def _check_files(files: dict[str, Path]) -> None:
    """Refuse what could not be written in the end, before anything is measured."""
    from srcli.jobs.plan import check_file

    for path in files.values():
        check_file(path)
    if len(set(files.values())) < len(files):
        raise UsageError("Two reports cannot have the same name.", "Name each file once.")
    if "html" in files:
        from srcli.benchmark.page import check

        check()


def _check_pictures(request: "Request") -> None:
    if request.pictures is not None:
        from srcli.benchmark.quality import hr_files

        hr_files(request.pictures)


def _write(report: "Report", files: dict[str, Path]) -> None:
    from srcli.benchmark import report as reports
    from srcli.benchmark.page import to_html

    texts: dict[str, Callable[[], str]] = {
        "json": report.to_json,
        "csv": report.to_csv,
        "markdown": report.to_markdown,
        "html": lambda: to_html(report),
    }
    for kind, path in files.items():
        reports.write(path, texts[kind]())
