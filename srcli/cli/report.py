"""`srcli report merge`: the reports of all shards of a run as one."""

from typing import Annotated

import typer

from srcli.cli.console import count, talk
from srcli.errors import shown

report_app = typer.Typer(rich_markup_mode=None, help="Join the JSON reports of shards.", no_args_is_help=True)


@report_app.callback()
def report() -> None:
    """Join the JSON reports of shards."""


@report_app.command()
def merge(
    parts: Annotated[
        list[str],
        typer.Argument(
            metavar="PARTS",
            help="Reports of shards, JSON or JSON Lines, in any order: paths, URLs, patterns of URLs.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The joined report, .json or .jsonl: a path or URL."
        ),
    ],
) -> None:
    """Join the reports of all shards of one run: same schema, pictures in the order of their inputs.

    Exit code: 0 all well, 1 some pictures failed or shards are missing, 2 wrong usage, 130 a shard was
    interrupted.
    """
    from srcli.io.remote import location
    from srcli.jobs.merge import expanded
    from srcli.jobs.merge import merge as joined

    reports, whole = expanded(parts), location(out)
    found = joined(reports, whole)
    counts = ", ".join(f"{number} {status}" for status, number in found.counts.items())
    talk(f"{count(len(reports), 'report')} joined in {shown(whole)}: {counts or 'no pictures'}.")
    if found.missing:
        are = "is" if len(found.missing) == 1 else "are"
        talk(f"note: {count(len(found.missing), 'shard')} {are} missing: {found.missing_text}.")
    raise typer.Exit(found.exit_code)
