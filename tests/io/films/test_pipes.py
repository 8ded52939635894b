"""Films through pipes: Y4M that reads back to the same codes, and what it cannot hold."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import copies
import numpy as np
import pytest
import scenes

from srcli.errors import InputError, UsageError
from srcli.io.films import pipes, streams
from srcli.io.films.facts import probe
from srcli.io.films.planes import planes_of


def sent(path: Path, folder: Path) -> tuple[copies.Facts, bytes]:
    facts = probe(path)
    encoding = copies.settled(facts, Path("out.mkv"), lossless=True)
    pipes.check_y4m(facts, encoding, on_error="repeat")
    sink = io.BytesIO()
    pipes.send_y4m(iter(copies.segments_of(facts, encoding, folder, 5)), sink, encoding, facts)
    return facts, sink.getvalue()


@pytest.mark.parametrize(
    ("pixel_format", "full"),
    [
        ("yuv420p", False), ("yuv422p", False), ("yuv444p", True), ("yuv411p", False), ("yuv420p10le", False),
        ("yuv422p10le", True), ("yuv444p12le", False), ("gray", True), ("gray10le", True),
    ],
)  # fmt: skip
def test_y4m_reads_back_to_the_same_codes(pixel_format: str, full: bool, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    rate = Fraction(24000, 1001)
    scene = scenes.Scene(
        frames=12, codec="ffv1", pixel_format=pixel_format, rate=rate, full_range=full, options={}
    )
    scenes.write(path, scene)
    facts, data = sent(path, tmp_path / "segments")
    (tmp_path / "again.y4m").write_bytes(data)
    again = probe(tmp_path / "again.y4m")
    assert (again.rate, len(again.times), again.pixel_format) == (rate, 12, facts.pixel_format)
    assert again.coding.full_range == facts.coding.full_range
    for (_, before, _), (_, after, _) in zip(copies.decoded(facts), copies.decoded(again), strict=True):
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "change",
    [{"pixel_format": "gbrp10le", "matrix": 0}, {"pixel_format": "yuva420p"}, {"times": (0, 1, 3, 4, 9)}],
)
def test_what_y4m_cannot_hold_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    scenes.write(path := tmp_path / "film.mkv", scenes.Scene(frames=5, codec="ffv1", options={}, **change))
    facts = probe(path)
    encoding = copies.settled(facts, Path("out.mkv"), lossless=True)
    with pytest.raises(UsageError, match="mkv"):
        pipes.check_y4m(facts, encoding, on_error="repeat")


def test_y4m_says_which_streams_it_leaves_out(tmp_path: Path) -> None:
    scenes.write(path := tmp_path / "film.mkv", scenes.Scene(frames=5, subtitles=True, chapters=True))
    carried = pipes.y4m_carried(streams.plan(probe(path), path))
    assert [step.how for step in carried.steps] == ["picture"]
    assert (carried.copied, len(carried.dropped)) == ((), 3)


@pytest.mark.parametrize("codec", ["ffv1", "h264", "h265", "av1"])
def test_matroska_in_a_pipe_has_the_frames_times_and_sound_of_a_file(codec: str, tmp_path: Path) -> None:
    source, out = tmp_path / "film.mkv", tmp_path / "file.mkv"
    scenes.write(source, scenes.Scene(frames=30, subtitles=True, chapters=True, times=(*range(29), 40)))
    made = copies.copy(source, out, every=15, codec=codec)
    sink = io.BytesIO()
    pipes.send(
        iter(made.segments), sink, made.encoding, made.facts, made.carried, made.facts.times, tags={}
    )  # fmt: skip
    (piped := tmp_path / "piped.mkv").write_bytes(sink.getvalue())
    assert copies.numbers(piped) == list(range(30))
    assert copies.times(piped) == copies.times(out) == copies.times(source)
    for kind in ("audio", "subtitle"):
        assert copies.packets(piped, kind) == copies.packets(out, kind)
    with av.open(str(piped)) as film:
        assert len(film.chapters()) == 2


def test_stdin_is_kept_in_a_file_while_it_is_needed(tmp_path: Path) -> None:
    scenes.write(path := tmp_path / "film.mkv", scenes.Scene(frames=5))
    with path.open("rb") as stream, pipes.spooled(stream, tmp_path) as kept:
        assert replace(probe(kept), path=path) == probe(path)
    assert [one.name for one in tmp_path.iterdir()] == ["film.mkv"]
    with pytest.raises(InputError, match="stdin"), pipes.spooled(io.BytesIO(), tmp_path):
        pass


def test_planes_are_those_of_the_segment(tmp_path: Path) -> None:
    scenes.write(path := tmp_path / "film.mkv", scenes.Scene(frames=2, codec="ffv1", options={}))
    found = list(pipes._decoded(path))
    with av.open(str(path)) as film:
        expected = [planes_of(frame)[0] for frame in film.decode(video=0)]
    assert all(np.array_equal(a, b) for a, b in zip(found[1], expected[1], strict=True))
