"""Inputs become names that never collide and never change with the order of the inputs."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import OutputError, UsageError
from srcli.jobs import plan as plans
from srcli.jobs.inputs import Found, Job, discover, name_outputs
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


def test_a_folder_gives_its_pictures_sorted_without_hidden_files_and_others(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt", "sub/c.png", "._d.jpg"):
        touch(tmp_path / name)
    flat = discover([str(tmp_path)], Path("out"), recursive=False)
    assert [picture.relative.name for picture in flat.pictures] == ["a.JPG", "b.png"]
    deep = discover([str(tmp_path)], Path("out"), recursive=True)
    assert [str(picture.relative) for picture in deep.pictures] == ["a.JPG", "b.png", "sub/c.png"]


def test_links_to_other_folders_are_searched_and_loops_are_not(tmp_path: Path) -> None:
    """The names of what a link leads to are those below the link; a link back up, into the folder itself or
    to what another one led to is passed by and told."""
    root, other = tmp_path / "photos", tmp_path / "elsewhere" / "2024"
    for file in (root / "a.png", root / "own" / "b.png", other / "c.png", other / "deep" / "d.png"):
        touch(file)
    links = {
        root / "2024": other,
        root / "again": other,
        root / "best": root / "own",
        root / "up": tmp_path,
        other / "deep" / "loop": other,
        other / "deep" / "root": root,
    }
    for link, target in links.items():
        link.symlink_to(target)
    made = plan([str(root)], tmp_path / "out", recursive=True)
    outputs = [str(job.target.relative_to(tmp_path / "out")) for job in made.jobs]
    assert outputs == ["a.png", "2024/c.png", "2024/deep/d.png", "own/b.png"]
    passed = [str(link.relative_to(root)) for link in made.passed_by]
    assert sorted(passed) == ["2024/deep/loop", "2024/deep/root", "again", "best", "up"]
    flat = plan([str(root)], tmp_path / "out")
    assert ([job.source.name for job in flat.jobs], flat.passed_by) == (["a.png"], ())


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    root, one, two = (tmp_path / name for name in ("root", "one", "two"))
    for folder, target in ((root, one), (one, two), (two, one)):
        touch(folder / "a.png")
        (folder / "link").symlink_to(target)
    made = plan([str(root)], tmp_path / "out", recursive=True)
    assert [str(job.source.relative_to(root)) for job in made.jobs] == [
        "a.png",
        "link/a.png",
        "link/link/a.png",
    ]
    assert made.passed_by == (root / "link" / "link" / "link",)


def test_a_link_to_the_output_folder_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.png"), touch(tmp_path / "out" / "a.png")
    (tmp_path / "in" / "results").symlink_to(tmp_path / "out")
    made = plan([str(tmp_path / "in")], tmp_path / "out", recursive=True)
    assert [job.source for job in made.jobs] == [tmp_path / "in" / "a.png"]
    assert made.left_out == tmp_path / "out"


def test_patterns_are_expanded_here_and_literal_names_win(tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png", "b.png", "[a].png"):
        touch(tmp_path / name)
    found = discover([str(tmp_path / "a*.png"), str(tmp_path / "[a].png")], Path("out"), recursive=False)
    assert [picture.path.name for picture in found.pictures] == ["a1.png", "a2.png", "[a].png"]


def test_a_file_named_twice_is_upscaled_once(tmp_path: Path) -> None:
    file = touch(tmp_path / "a.png")
    again = tmp_path / "sub" / ".." / "a.png"
    (tmp_path / "sub").mkdir()
    found = discover([str(file), str(tmp_path), str(again)], Path("out"), recursive=False)
    assert [picture.path for picture in found.pictures] == [file]


def test_what_cannot_be_tried_is_a_problem_and_the_rest_stays(tmp_path: Path) -> None:
    good = touch(tmp_path / "a.png")
    (tmp_path / "x.png").mkdir()
    names = [
        "nosuch.png",
        "nosuch*.png",
        str(tmp_path / "x.png"),
        str(good / "below"),
        "nul\0.png",
        str(good),
    ]
    found = discover(names, Path("out"), recursive=False)
    assert [picture.path for picture in found.pictures] == [good]
    assert [str(problem.path) for problem in found.problems] == names[:-1]


def test_the_output_folder_is_no_input(tmp_path: Path) -> None:
    out = tmp_path / "upscaled"
    touch(tmp_path / "a.png"), touch(out / "a.png")
    made = plan([str(tmp_path)], out, recursive=True)
    assert [job.source for job in made.jobs] == [tmp_path / "a.png"]
    assert made.left_out == out


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


def test_films_that_nothing_reads_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "find_spec", lambda name: None)
    for name in ("a.mkv", "b.png"):
        (tmp_path / name).write_bytes(b"")
    found = plan([str(tmp_path / "a.mkv"), str(tmp_path / "b.png")], tmp_path / "out")
    assert [job.source.name for job in found.jobs] == ["b.png"]
    assert ["srcli[video]" in problem.error.hint for problem in found.problems] == [True]
