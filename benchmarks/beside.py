"""The usual way beside `srcli upscale`: how fast both are, what is left of a film; part of `films.py`."""

import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import clips
import usual
from common import Section, Table, spread
from film_runs import Setup
from srcli.benchmark.rounds import interleave
from srcli.benchmark.run import engine_alone
from usual import Found

SCENES = Path(__file__).parents[1] / "tests" / "io" / "films"
"""Where the tests make films with everything in them."""


def section(setup: Setup) -> Section:
    """The usual way beside the command: speed on two films, and what is lost of a third."""
    options, model = setup.options, setup.options.models[0]
    height, width = options.usual_size
    films = {
        "film with grain": setup.clip("grain", clips.camera(height, width, options.usual_frames), crf=17),
        "screen recording": setup.clip("screen", clips.screen(height, width, options.usual_frames), crf=23),
    }
    rates: dict[str, dict[str, list[float]]] = {}
    for name, source in films.items():
        rates[name] = interleave(
            {
                "usual": partial(_usual, source, setup.scratch / "usual.mkv", model),
                "srcli": partial(setup.run, source, "srcli.mkv", "--model", model),
            },
            options.rounds,
            warmup=0,
        )
    rows = [
        (f"frames/s, {name}", *(f"{options.usual_frames / spread(one[way]).median:.2f}" for way in one))
        for name, one in rates.items()
    ]
    kept = _kept(setup) | _luma(setup, films["film with grain"])
    rows += [(name, *cells) for name, cells in kept.items()]
    method = (
        f"Frames/s: {options.usual_frames} frames of {width}×{height} to twice the size with `{model}`, "
        f"the same engine and encoder settings, medians of {options.rounds} rounds in turns, from the first "
        "window on. What is kept: a film of 8 bits (BT.709) with a variable rate, two tracks of sound, "
        "subtitles and chapters, and one of 10 bits (BT.2020), at scale 1. Luma: of the film with grain at "
        "scale 1, written without loss, so that only the conversions show. The usual way is the loop of "
        "`benchmarks/usual.py`: 8-bit RGB by swscale, whole frames, one step after the other, a constant "
        "rate, the picture alone. (ffmpeg's own raw pipe repeats and drops frames to a constant rate "
        "instead.)"
    )
    table = Table(("", "the usual way", "`srcli upscale`"), tuple(rows))
    raw = {"seconds": rates, "kept": kept}
    return Section("usual", "Films: beside the usual way", method, (table,), raw)


def _usual(source: Path, target: Path, model: str) -> float:
    """Seconds of the usual way, its network loaded before."""
    enlarge = usual.by(engine_alone(model, 2, "auto", "auto")[0])
    begin = perf_counter()
    usual.film(source, target, enlarge)
    return perf_counter() - begin


def _kept(setup: Setup) -> dict[str, tuple[str, str]]:
    """What is left of films by either way, at scale 1."""
    sys.path.append(str(SCENES))
    import scenes

    gaps = np.random.default_rng(0).choice([1, 2, 3], 47)
    times = [0, *(int(time) for time in np.cumsum(gaps))]
    rich = scenes.Scene(
        times=times,
        rate=Fraction(48),
        audio=(scenes.Audio(), scenes.Audio(language="deu")),
        subtitles=True,
        chapters=True,
    )
    deep = scenes.Scene(
        pixel_format="yuv420p10le",
        codec="libx265",
        options={"x265-params": "log-level=error"},
        matrix=9,
        primaries=9,
        transfer=14,
    )
    of_rich, of_deep = ([usual.look(path) for path in _copies(setup, scene)] for scene in (rich, deep))
    found = {name: _both(of_rich, cell) for name, cell in _RICH.items()}
    return found | {f"{name}, 10 bits": _both(of_deep, cell) for name, cell in _DEEP.items()}


def _copies(setup: Setup, scene: Any) -> list[Path]:
    """A film, and what either way makes of it at scale 1."""
    import scenes

    paths = [setup.scratch / f"{scene.pixel_format}-{way}.mkv" for way in ("source", "usual", "srcli")]
    scenes.write(paths[0], scene)
    usual.film(paths[0], paths[1], lambda rgb: rgb)
    setup.run(paths[0], paths[2].name, scale=1)
    return paths


def _both(films: list[Found], cell: Callable[[Found, Found], str]) -> tuple[str, str]:
    return cell(films[0], films[1]), cell(films[0], films[2])


def _apart(was: Found, now: Found) -> str:
    most = max(abs(a - b) for a, b in zip(was.times, now.times, strict=False))
    return f"up to {most * 1000:.0f} ms off"


def _tags(was: Found, now: Found) -> str:
    return "kept" if now.colour == was.colour else "lost"


def _tracks(kind: str) -> Callable[[Found, Found], str]:
    return lambda was, now: f"{now.streams.get(kind, 0)} of {was.streams[kind]}"


_RICH: dict[str, Callable[[Found, Found], str]] = {
    "frames": lambda was, now: f"{len(now.times)} of {len(was.times)}",
    "times, variable rate": _apart,
    "sound tracks": _tracks("audio"),
    "subtitles": _tracks("subtitle"),
    "chapters": lambda was, now: f"{now.chapters} of {was.chapters}",
    "colour tags": _tags,
}
_DEEP: dict[str, Callable[[Found, Found], str]] = {"colour tags": _tags, "pixels": lambda _, now: now.pixels}


def _luma(setup: Setup, source: Path) -> dict[str, tuple[str, str]]:
    """How far the luma of either way is from the film's, at scale 1 and without loss."""
    ways = [setup.scratch / f"{way}-luma.mkv" for way in ("usual", "srcli")]
    usual.film(source, ways[0], lambda rgb: rgb, usual.LOSSLESS)
    setup.run(source, ways[1].name, "--lossless", scale=1)
    errors = [usual.luma_error(source, way) for way in ways]
    cells = [f"{mean:.2f} on average, {most} at most" for mean, most in errors]
    return {"luma off by, of 255": (cells[0], cells[1])}
