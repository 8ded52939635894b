"""The report as one HTML file that needs nothing else, with three plots as SVG."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

from srcli.benchmark.report import Report, Row
from srcli.errors import MissingExtraError

_TITLES = ("Quality against speed", "Throughput against input size", "Time by stage")
_CSS = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}"
    "th,td{padding:.25rem .5rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}"
    "th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}"
    "div{overflow-x:auto}svg{max-width:100%;height:auto}code{background:#f3f3f3;padding:.1rem .3rem}"
)
_COLOURS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:red",
    "tab:purple",
    "tab:brown",
    "tab:olive",
    "tab:cyan",
)
_MARKERS = "osD^v<>P"
_STAGES = (("decode", "tab:gray"), ("infer", "tab:blue"), ("encode", "tab:orange"))
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "srcli", "font.size": 9.0}
_HEIGHT = 4.2  # inches


def to_html(report: Report) -> str:
    """The table, the three plots and the facts.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    command, *facts = (escape(fact) for fact in report.facts)
    sections = [f"<h2>{title}</h2>\n{svg}" for title, svg in zip(_TITLES, draw(report), strict=True)]
    body = [
        "<h1>srcli benchmark</h1>",
        f"<p><code>{command}</code></p>",
        *(f"<p>{fact}</p>" for fact in facts),
        f"<div>{_html_table(report.table)}</div>",
        *(f"<p>{escape(problem)}</p>" for problem in report.problems),
        f"<p>{escape(report.method)}</p>",
        *sections,
    ]
    head = f'<meta charset="utf-8"><title>srcli benchmark</title><style>{_CSS}</style>'
    return "\n".join(
        ["<!DOCTYPE html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""]
    )


def _html_table(rows: list[list[str]]) -> str:
    header, *body = [[escape(cell) for cell in row] for row in rows]
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body]
    head = f"<tr>{''.join(f'<th>{cell}</th>' for cell in header)}</tr>"
    return "\n".join([f"<table><thead>{head}</thead><tbody>", *lines, "</tbody></table>"])


def check() -> None:
    """Refuse early what cannot be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib, which draws the HTML report,", "benchmark") from error


def draw(report: Report) -> tuple[str, str, str]:
    """Quality against speed, throughput against tile size, time by stage: three <svg> elements.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check()
    return _svg(_quality, report), _svg(_throughput, report), _svg(_stacked, report)


def _svg(plot: Callable[[Any, Report], None], report: Report) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, _height(plot, report)), layout="constrained")
        plot(figure.add_subplot(), report)
        text = io.StringIO()
        figure.savefig(text, format="svg")
    return inline(text.getvalue())


def inline(svg: str) -> str:
    """An SVG file as an element of an HTML page, which needs neither prologue, metadata nor namespaces."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element).strip()


def _height(plot: object, report: Report) -> float:
    return max(_HEIGHT, 0.8 + 0.24 * len(report.rows)) if plot is _stacked else _HEIGHT


def _quality(axes: Any, report: Report) -> None:
    """One point a row at the largest size: a colour an engine, a marker a model."""
    largest = max(row.size for row in report.rows)
    points = [
        (row, row.speed.megapixels, row.quality.to_hr)
        for row in report.rows
        if row.size == largest and row.speed and row.quality
    ]
    rows = [row for row, _, _ in points]
    engines, models = _unique(rows, _engine), _unique(rows, _model)
    for row, speed, psnr in points:
        marker, colour = _pick(_MARKERS, models, _model(row)), _pick(_COLOURS, engines, _engine(row))
        axes.scatter(speed, psnr, marker=marker, color=colour, s=46)
    axes.set_xlim(left=0)
    for engine in engines:
        axes.scatter([], [], marker="s", color=_pick(_COLOURS, engines, engine), label=engine)
    for model in models:
        axes.scatter([], [], marker=_pick(_MARKERS, models, model), color="black", label=model)
    axes.set(xlabel=f"output megapixels a second, inputs of {largest}²", ylabel="PSNR (Y) to HR, dB")
    _finish(axes)


def _throughput(axes: Any, report: Report) -> None:
    """One line a model and engine."""
    engines, models = _unique(report.rows, _engine), _unique(report.rows, _model)
    for model in models:
        for engine in engines:
            points = sorted(
                (row.size, row.speed.megapixels)
                for row in report.rows
                if row.speed and (_model(row), _engine(row)) == (model, engine)
            )
            style = {"marker": _pick(_MARKERS, models, model), "color": _pick(_COLOURS, engines, engine)}
            if points:
                axes.plot(*zip(*points, strict=True), label=f"{model}, {engine}", **style)
    tile = max(row.tile for row in report.rows)
    axes.set(
        xlabel=f"side of the input, LR pixels: one tile up to {tile}", ylabel="output megapixels a second"
    )
    axes.set_ylim(bottom=0)
    _finish(axes)


def _stacked(axes: Any, report: Report) -> None:
    """One bar a row, the first on top."""
    rows = [row for row in report.rows if row.stages]
    names = [f"{_model(row)}, {_engine(row)}, {row.input}" for row in rows]
    places, left = range(len(names)), [0.0] * len(names)
    for stage, colour in _STAGES:
        values = [getattr(row.stages, stage) for row in rows]
        axes.barh(places, values, left=left, color=colour, label=stage)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel=f"seconds for a JPEG of {report.picture}×{report.picture}")
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:  # none where all rows failed
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _engine(row: Row) -> str:
    return row.engine


def _model(row: Row) -> str:
    return f"{row.model} x{row.scale}"


def _unique(rows: Any, name: Callable[[Row], str]) -> list[str]:
    return list(dict.fromkeys(map(name, rows)))


def _pick(values: Any, names: list[str], name: str) -> Any:
    """The value of a name, by its place; they repeat where there are more names."""
    return values[names.index(name) % len(values)]
