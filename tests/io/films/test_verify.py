"""A written film read again, against the film it was made from."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import copies
import pytest
import scenes
from scenes import B_FRAMES, Audio, Scene

from srcli.io.films.verify import Verified, verify


def test_a_good_copy_is_found_good(tmp_path: Path) -> None:
    sound = (Audio("aac", start=Fraction(1, 4)), Audio("flac"))
    scenes.write(
        tmp_path / "a.mkv", Scene(options=B_FRAMES, audio=sound, subtitles=True, cover=True, chapters=True)
    )
    for suffix in (".mkv", ".mp4"):
        done = copies.copy(tmp_path / "a.mkv", tmp_path / f"out{suffix}", every=10)
        found = verify(tmp_path / f"out{suffix}", done.facts, done.carried)
        assert (found.frames, found.deviation, found.changed) == (24, 0, ())
        assert found.apart < Fraction(1, 1000)
        assert found.packets == sum(
            len(copies.packets(tmp_path / "a.mkv", "audio", each)) for each in (0, 1)
        ) + (2 if suffix == ".mkv" else 0)


def test_sound_of_mpeg_ts_is_the_same_without_its_headers(tmp_path: Path) -> None:
    scenes.write(tmp_path / "a.ts", Scene(audio=(Audio("aac"),)))
    done = copies.copy(tmp_path / "a.ts", tmp_path / "out.mp4")
    found = verify(tmp_path / "out.mp4", done.facts, done.carried)
    assert found.changed == ()
    assert found.packets == 46


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_damage_is_found(tmp_path: Path, suffix: str) -> None:
    scenes.write(tmp_path / "a.mkv", Scene(audio=(Audio("flac"),)))
    out = tmp_path / f"out{suffix}"
    done = copies.copy(tmp_path / "a.mkv", out)
    data = bytearray(out.read_bytes())
    packet = copies.packets(out, "audio")[3][2]
    data[data.find(packet) + 5] ^= 1
    out.write_bytes(data)
    assert verify(out, done.facts, done.carried).changed == ("audio 1 (flac, eng)",)


def test_frames_at_other_times_are_found(tmp_path: Path) -> None:
    scenes.write(tmp_path / "a.mp4", Scene(times=[0, 100, 300, 400], time_base=Fraction(1, 1000)))
    done = copies.copy(tmp_path / "a.mp4", tmp_path / "out.mp4")
    wrong = replace(done.facts, times=(*done.facts.times[:3], done.facts.times[3] * 2))
    scale = done.facts.times[1] / Fraction(100)
    found = verify(tmp_path / "out.mp4", wrong, done.carried)
    assert isinstance(found, Verified)
    assert found.deviation == 400 * scale * done.facts.time_base
    assert verify(tmp_path / "out.mp4", done.facts, done.carried).deviation == 0
