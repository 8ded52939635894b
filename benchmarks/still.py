"""Films whose parts stand still, these left out and everything computed: a section of `films.py`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import clips
import usual
from common import Section, Table
from film_runs import Setup
from srcli.imaging.pixels import Pixels
from srcli.jobs import film_worker as jobs
from srcli.precision import Pass
from srcli.stream import Image
from stages import clocked


@dataclass(frozen=True, slots=True)
class Clip:
    """A film for the still windows.

    Attributes:
        what: in words.
        frames: makes it.
        crf: of its H.264.
        share: of `--still-frames`.
        options: of srcli.
        aim: speed over everything computed, in words.
        rate: frames a second.
        whole: one window a frame, as a film of that size has by default.
    """

    what: str
    frames: Callable[[int, int, int], Iterator[Pixels]]
    crf: int
    share: float
    options: tuple[str, ...]
    aim: str
    rate: int = clips.RATE
    whole: bool = False


_drawn = partial(Clip, frames=clips.drawings, crf=18, share=1.6, rate=clips.DRAWN)
_small = partial(_drawn, whole=True)
CLIPS = {
    "screen": Clip("screen recording", clips.screen, 23, 1.0, (), "at least 2.5"),
    "slides": Clip("slides, 2 s each", clips.slides, 23, 1.0, (), "at least 2.5"),
    "grain": Clip("film with grain", clips.camera, 17, 0.25, (), "at least 0.99"),
    "drawings": _drawn("held animation", options=(), aim=""),
    "drawings-2": _drawn("held animation, `--still 2`", options=("--still", "2"), aim="3 to 8"),
    "drawings-4": _drawn("held animation, `--still 4`", options=("--still", "4"), aim="3 to 8"),
    "whole": _small("the same in one window a frame", options=(), aim=""),
    "whole-2": _small("in one window, `--still 2`", options=("--still", "2"), aim="3 to 8"),
    "whole-4": _small("in one window, `--still 4`", options=("--still", "4"), aim="3 to 8"),
}
"""By name, as `--clips` takes them."""
_CLOCKED = {"compare": (Pass, "_leave_out"), "feed": (Pass, "feed")}


def section(setup: Setup) -> Section:
    """With windows that are as before left out against everything computed, in turns."""
    options = setup.options
    known: dict[str, tuple[float, int]] = {}
    found = {name: _still(setup, CLIPS[name], known) for name in options.clips}
    rows = tuple(
        (
            CLIPS[name].what,
            *(f"{one[key]:.2f} s" for key in ("everything", "compared")),
            f"**{one['gain']:.2f}**",
            f"{one['windows']:.0%}",
            f"{one['comparing']:.2%}",
            "the same" if one["psnr"] is None else f"{one['psnr']:.1f} dB",
            CLIPS[name].aim,
        )
        for name, one in found.items()
    )
    header = (
        "film",
        "everything computed",
        "compared",
        "times as fast",
        "windows",
        "comparing",
        "pixels",
        "aim",
    )
    height, width = options.still_size
    method = (
        f"Films of {width}×{height}, {clips.RATE} frames/s (animation {clips.DRAWN}), H.264 by x264 (crf 23; "
        f"film with grain 17, animation 18), to twice the size with `{options.still_model}` and "
        f"`--tile {options.still_tile}`, so that a frame has about as many windows as one of 1080p by "
        "default; to FFV1. The animation is made by code: before a background that stands still, a figure "
        "moves on twos and on threes for a second each, then stands and talks for two, with pauses of 9 and "
        "14 frames. The whole command from the first window on, once each, one after the other. Windows: "
        "those that are computed, of all. Comparing: time of the comparison, as a share of that with "
        "everything computed. Pixels: PSNR of the luma against that."
    )
    name = "-".join(["still", *([] if options.clips == list(CLIPS) else options.clips)])
    return Section(name, "Films: nothing is computed twice", method, (Table(header, rows),), found)


def _still(setup: Setup, clip: Clip, known: dict[str, tuple[float, int]]) -> dict[str, Any]:
    """One film; the seconds and windows of computing everything are kept in `known` for other options."""
    options = setup.options
    height, width = options.still_size
    count = max(2, round(options.still_frames * clip.share))
    name, whole = clip.frames.__name__, clip.whole
    source = setup.clip(name, clip.frames(height, width, count), crf=clip.crf, rate=clip.rate)
    tile = [] if whole else ["--tile", str(options.still_tile)]
    film, more = f"{name}-{whole}", ["--model", options.still_model, "--lossless", *tile]
    if film not in known:
        with patch.object(jobs, "Image", _never_still), clocked(_CLOCKED) as shares:
            seconds = setup.run(source, f"{film}.mkv", *more)
        known[film] = seconds, shares["feed"].calls
    everything, windows = known[film]
    with clocked(_CLOCKED) as shares:
        compared = setup.run(source, "compared.mkv", *more, *clip.options)
    psnr = usual.luma_psnr(setup.scratch / "compared.mkv", setup.scratch / f"{film}.mkv")
    return {
        "frames": count,
        "everything": everything,
        "compared": compared,
        "gain": everything / compared,
        "windows": shares["feed"].calls / windows,
        "comparing": shares["compare"].wall / everything,
        "psnr": psnr,
    }


def _never_still(*values: Any, **options: Any) -> Image:
    return replace(Image(*values, **options), still=None)
