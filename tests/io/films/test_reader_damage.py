from pathlib import Path
from typing import Any

import av
import pytest
from scenes import B_FRAMES, Scene, cut, damage, read_number, write

from srcli.errors import InputError
from srcli.io.films.facts import Facts, probe
from srcli.io.films.reader import Frame, frames

HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=12"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
FILMS = {
    "film.mp4": ("libx264", B_FRAMES), "film.mkv": ("libx265", HEVC), "film.webm": ("libvpx-vp9", VP9),
    "film.avi": ("mpeg4", {}), "ffv1.mkv": ("ffv1", {}),
}  # fmt: skip


def damaged(tmp_path: Path, name: str, packets: list[int], **scene: Any) -> Facts:
    codec, options = FILMS[name]
    made = {"codec": codec, "options": options, "audio": (), "frames": 36}
    write(tmp_path / name, Scene(**{**made, **scene}))
    damage(tmp_path / name, packets)
    return probe(tmp_path / name)


def digests(found: list[Frame]) -> list[bytes]:
    return [frame.digest() for frame in found]


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("packets", [[5], [20, 21]])
def test_lost_frame_repeats_the_one_before(tmp_path: Path, name: str, packets: list[int]) -> None:
    facts = damaged(tmp_path, name, packets)
    found = list(frames(facts))
    assert tuple(frame.time for frame in found) == facts.times
    assert len(found) == 36
    lost = [frame.number for frame in found if frame.repeated]
    assert len(lost) >= len(packets)
    assert all(found[number].digest() == found[number - 1].digest() for number in lost)
    behind = [frame for frame in found if frame.number >= 24 and not frame.repeated]
    assert all(read_number(frame.planes) == frame.number for frame in behind)


@pytest.mark.parametrize("name", FILMS)
def test_lost_frame_can_be_left_out(tmp_path: Path, name: str) -> None:
    facts = damaged(tmp_path, name, [5])
    repeated, skipped = list(frames(facts)), list(frames(facts, on_error="skip"))
    kept = [frame for frame in repeated if not frame.repeated]
    assert [frame.number for frame in skipped] == [frame.number for frame in kept]
    assert digests(skipped) == digests(kept)


@pytest.mark.parametrize("name", FILMS)
def test_lost_frame_can_end_the_film(tmp_path: Path, name: str) -> None:
    facts = damaged(tmp_path, name, [20])
    found = frames(facts, on_error="stop")
    seen = []
    with pytest.raises(InputError, match="damaged"):
        seen += [next(found).number for _ in range(36)]
    with pytest.raises(InputError, match="frame"):
        list(frames(facts, on_error="stop"))


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.webm", "ffv1.mkv"])
def test_lost_first_frames_show_the_next_one(tmp_path: Path, name: str) -> None:
    found = list(frames(damaged(tmp_path, name, [0])))
    lost = [frame.number for frame in found if frame.repeated]
    assert lost == list(range(12))
    assert all(found[number].digest() == found[12].digest() for number in lost)
    assert read_number(found[12].planes) == 12


@pytest.mark.parametrize("name", FILMS)
def test_damage_at_the_end_costs_no_other_frame(tmp_path: Path, name: str) -> None:
    """Frames that several threads still have are not lost with those that fail."""
    found = list(frames(damaged(tmp_path, name, [34, 35])))
    assert len(found) == 36
    assert sum(frame.repeated for frame in found) == 2


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("number", [4, 11, 19, 21, 30])
def test_damaged_film_is_continued_exactly(tmp_path: Path, name: str, number: int) -> None:
    facts = damaged(tmp_path, name, [5, 20, 21])
    found = list(frames(facts))
    after = found[number].time, found[number].digest()
    rest = list(frames(facts, after=after))
    assert [frame.number for frame in rest] == [frame.number for frame in found[number + 1 :]]
    assert digests(rest) == digests(found[number + 1 :])


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_film_without_times_is_in_step_again_after_a_key_frame(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "film.avi"
    options = B_FRAMES if codec == "libx264" else {"bf": "2", "g": "12"}
    write(path, Scene(codec=codec, options=options, audio=(), frames=48))
    damage(path, [5])
    facts = probe(path)
    assert not facts.timed
    found = list(frames(facts))
    assert len(found) == 48
    assert sum(frame.repeated for frame in found) == 1
    assert [read_number(frame.planes) for frame in found[13:]] == list(range(13, 48))


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.webm"])
def test_cut_film_is_read_only_if_asked(tmp_path: Path, name: str) -> None:
    facts = damaged(tmp_path, name, [])
    whole = list(frames(facts))
    cut(facts.path, 0.6)
    facts = probe(facts.path)
    for on_error in ("repeat", "stop"):
        with pytest.raises(InputError, match="cut off"):
            frames(facts, on_error=on_error)
    found = list(frames(facts, on_error="skip"))
    assert 0 < len(found) < 36
    assert all(frame.digest() == whole[read_number(frame.planes)].digest() for frame in found)


def test_cut_mp4_is_read_only_if_asked(tmp_path: Path) -> None:
    facts = damaged(tmp_path, "film.mp4", [], container_options={"movflags": "faststart"})
    cut(facts.path, 0.6)
    facts = probe(facts.path)
    with pytest.raises(InputError, match="frames are missing"):
        frames(facts)
    found = list(frames(facts, on_error="skip"))
    assert 0 < len(found) < 36
    assert all(read_number(frame.planes) == frame.number for frame in found[:12])


def test_film_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    facts = damaged(tmp_path, "film.mkv", [], frames=600)
    found = frames(facts)
    next(found)
    cut(facts.path, 0.3)
    with pytest.raises(InputError):
        list(found)


def test_decoder_that_fails_for_good_is_an_error(tmp_path: Path) -> None:
    facts = damaged(tmp_path, "ffv1.mkv", list(range(20, 300)), frames=300)
    with pytest.raises(InputError, match="frame 20 of 300"):
        list(frames(facts))
    assert len(list(frames(facts, on_error="skip"))) == 20


def test_error_of_reading_is_an_error_of_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = damaged(tmp_path, "film.mp4", [])

    def failing(container: Any, stream: Any, demux: Any = av.container.InputContainer.demux) -> Any:
        for number, packet in enumerate(demux(container, stream)):
            if number == 20:
                raise av.error.OSError(5, "Input/output error")
            yield packet

    class Container:
        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def demux(self, stream: Any) -> Any:
            return failing(self._container, stream)

        def __enter__(self) -> "Container":
            return self

        def __exit__(self, *error: object) -> None:
            self._container.close()

    opening = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: Container(opening(*args, **options)))
    with pytest.raises(InputError, match="input/output"):
        list(frames(facts))
    assert len(list(frames(facts, on_error="skip"))) < 36
