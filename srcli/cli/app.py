"""The srcli command: its sub-commands, and the one place that turns every error into words."""

import codecs
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from srcli import __version__
from srcli.cli.benchmark import benchmark
from srcli.cli.console import REPLACE, Messages, replaced, show_error, talk, tell_unprinted, unheard
from srcli.cli.doctor import doctor
from srcli.cli.evaluate import evaluate
from srcli.cli.export import export
from srcli.cli.models import models_app
from srcli.cli.report import report_app
from srcli.cli.train import train
from srcli.cli.upscale import upscale
from srcli.errors import ExitCode, SrcliError


class _Commands(TyperGroup):
    """All sub-commands; the interrupts they do not handle are said here, as typer ends without a word."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["upscale", "report", "models", "train", "evaluate", "export", "benchmark", "doctor"]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            talk("Interrupted.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


# Plain help (no rich markup) starts three times as fast, and no file name is taken for markup.
app = typer.Typer(
    name="srcli",
    cls=_Commands,
    help="Super-resolution with EDSR and MDSR: turn pictures into larger ones.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (upscale, train, evaluate, export, benchmark, doctor):
    app.command()(_command)
app.add_typer(report_app, name="report")
app.add_typer(models_app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srcli {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Super-resolution with EDSR and MDSR: turn pictures into larger ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; never raises, never shows a traceback.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    code = int(ExitCode.OK)
    _open_streams()
    try:
        with Messages() as messages:
            code = _run(arguments, messages)
        with unheard(sys.stdout):
            sys.stdout.flush()
    except KeyboardInterrupt:
        talk("Interrupted.")
        return ExitCode.INTERRUPTED
    except Exception as error:  # the last line of defence
        return _explain(error)
    return ExitCode.FAILED if tell_unprinted() and not code else code


def _open_streams() -> None:
    """Printing goes nowhere if the process has no stdout or stderr; no character is an error."""
    codecs.register_error(REPLACE, replaced)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - as long as the process
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=REPLACE)


def _run(arguments: Sequence[str] | None, messages: Messages) -> int:
    try:
        app(args=None if arguments is None else list(arguments), prog_name="srcli", obj=messages)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.OK
    return ExitCode.OK


def _explain(error: Exception) -> int:
    """Say what went wrong; with SRCLI_DEBUG set, where as well."""
    known = error if isinstance(error, SrcliError) else _bug(error)
    if os.environ.get("SRCLI_DEBUG"):
        import traceback

        traceback.print_exception(error)
    show_error(known.message, known.hint)
    return known.exit_code


def _bug(error: Exception) -> SrcliError:
    return SrcliError(
        f"This is a bug in srcli: {type(error).__name__}: {error}",
        "Please report it with the command you ran; SRCLI_DEBUG=1 shows where it happened.",
    )
