"""Inputs become names that never collide and never change with the order of the inputs."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import OutputError, UsageError
from srcli.jobs.inputs import Found
from srcli.jobs.outputs import Job, name_outputs
from srcli.jobs.plan import check_targets, plan


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def named(*paths: str, format: str | None = None) -> list[str]:  # noqa: A002
    pictures = [Found(Path(path), Path(path).relative_to("in")) for path in paths]
    return [str(job.target.relative_to("out")) for job in name_outputs(pictures, Path("out"), format)]


def test_names_and_suffixes_are_kept() -> None:
    assert named("in/photo.jpg", "in/B.JPEG", "in/deep/x y.tif") == ["photo.jpg", "B.JPEG", "deep/x y.tif"]


def test_formats_that_cannot_be_written_become_png() -> None:
    assert named("in/a.gif", "in/scan.v2", "in/noname") == ["a.png", "scan.v2.png", "noname.png"]


def test_a_format_for_all_keeps_suffixes_that_mean_it() -> None:
    assert named("in/a.png", "in/b.JPEG", "in/c.tif", format="jpeg") == ["a.jpg", "b.JPEG", "c.jpg"]


def test_same_name_in_one_format_is_told_apart_by_suffix() -> None:
    assert named("in/a.png", "in/a.jpg", format="png") == ["a-png.png", "a-jpg.png"]


def test_same_name_from_two_folders_is_told_apart_by_folder() -> None:
    pictures = [Found(Path("x/a.png"), Path("a.png")), Found(Path("y/a.png"), Path("a.png"))]
    assert [job.target.name for job in name_outputs(pictures, Path("out"))] == ["a-x.png", "a-y.png"]


def test_names_equal_but_for_case_or_normal_form_are_told_apart() -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    names = named("in/A.png", "in/a.png", f"in/{composed}", f"in/{decomposed}")
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == 4


def test_a_tagged_name_never_takes_that_of_another_picture() -> None:
    names = named("in/a.png", "in/a.jpg", "in/a-png.png", format="png")
    assert names[2] == "a-png.png"
    assert len(set(names)) == 3


STEMS = st.sampled_from(["a", "A", "a-png", "a-jpg", "a-in", "ß", "SS", "b"])
SUFFIXES = st.sampled_from([".png", ".jpg", ".JPG", ".gif", ""])
FOLDERS = st.sampled_from(["in", "in/x", "in/X", "other"])
PATHS = st.lists(st.tuples(FOLDERS, STEMS, SUFFIXES), min_size=1, max_size=12, unique=True)


@given(PATHS, st.sampled_from([None, "png", "jpeg"]))
def test_names_are_distinct_whatever_the_case_and_independent_of_order(
    parts: list[tuple[str, str, str]],
    wanted: str | None,
) -> None:
    found = [Found(Path(folder, stem + suffix), Path(stem + suffix)) for folder, stem, suffix in parts]
    names = {job.source: job.target for job in name_outputs(found, Path("out"), wanted)}
    assert len({str(name).casefold() for name in names.values()}) == len(found)
    shuffled = found[::-1]
    assert {job.source: job.target for job in name_outputs(shuffled, Path("out"), wanted)} == names


def test_an_output_folder_that_is_an_input_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    with pytest.raises(UsageError, match="also an input"):
        plan([str(tmp_path)], tmp_path / "." / "")


def test_an_output_that_is_an_input_is_refused_through_links_too(tmp_path: Path) -> None:
    source = touch(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    os.link(source, tmp_path / "out" / "a.png")
    with pytest.raises(UsageError, match="overwrite an input"):
        plan([str(source)], tmp_path / "out")
    with pytest.raises(UsageError, match="overwrite an input"):
        check_targets([Job(source, source)])


def test_a_file_in_the_way_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    source = touch(tmp_path / "a.png")
    in_the_way = touch(tmp_path / "file")
    with pytest.raises(OutputError, match="file is not a folder"):
        plan([str(source)], in_the_way / "below")


def test_one_picture_may_get_a_name_of_its_own(tmp_path: Path) -> None:
    source = touch(tmp_path / "a.png")
    assert plan([str(source)], tmp_path / "large.jpg").jobs == (Job(source, tmp_path / "large.jpg"),)
    with pytest.raises(UsageError, match="one picture's name"):
        plan([str(source), str(source)], tmp_path / "large.jpg")
    with pytest.raises(UsageError, match="--format"):
        plan([str(source)], tmp_path / "large.jpg", format="png")


def test_formats_are_known_by_suffix_and_name(tmp_path: Path) -> None:
    source = touch(tmp_path / "a.png")
    for name in ("jpg", "JPEG", ".jpeg"):
        assert plan([str(source)], tmp_path / "out", format=name).jobs[0].target.name == "a.jpg"
    with pytest.raises(UsageError, match="Format 'gif'"):
        plan([str(source)], tmp_path / "out", format="gif")
