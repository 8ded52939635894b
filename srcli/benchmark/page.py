"""The report as one HTML file that needs nothing else."""

from html import escape

from srcli.benchmark import plots
from srcli.benchmark.report import Report

_TITLES = ("Quality against speed", "Throughput against input size", "Time by stage")
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}"
    "th,td{padding:.25rem .5rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}"
    "th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}"
    "div{overflow-x:auto}svg{max-width:100%;height:auto}code{background:#f3f3f3;padding:.1rem .3rem}"
)


def to_html(report: Report) -> str:
    """The table, the three plots and the facts.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    command, *facts = (escape(fact) for fact in report.facts)
    sections = [f"<h2>{title}</h2>\n{svg}" for title, svg in zip(_TITLES, plots.draw(report), strict=True)]
    body = [
        "<h1>srcli benchmark</h1>",
        f"<p><code>{command}</code></p>",
        *(f"<p>{fact}</p>" for fact in facts),
        f"<div>{_table(report.table)}</div>",
        *(f"<p>{escape(problem)}</p>" for problem in report.problems),
        f"<p>{escape(report.method)}</p>",
        *sections,
    ]
    head = f'<meta charset="utf-8"><title>srcli benchmark</title><style>{_STYLE}</style>'
    return "\n".join(
        ["<!DOCTYPE html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""]
    )


def _table(rows: list[list[str]]) -> str:
    header, *body = [[escape(cell) for cell in row] for row in rows]
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body]
    head = f"<tr>{''.join(f'<th>{cell}</th>' for cell in header)}</tr>"
    return "\n".join([f"<table><thead>{head}</thead><tbody>", *lines, "</tbody></table>"])
