"""Which files are inputs, and which are not."""

from pathlib import Path

import pytest

from srcli.jobs import plan as plans
from srcli.jobs.inputs import discover
from srcli.jobs.plan import plan


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


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


def test_films_that_nothing_reads_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "find_spec", lambda name: None)
    for name in ("a.mkv", "b.png"):
        (tmp_path / name).write_bytes(b"")
    found = plan([str(tmp_path / "a.mkv"), str(tmp_path / "b.png")], tmp_path / "out")
    assert [job.source.name for job in found.jobs] == ["b.png"]
    assert ["srcli[video]" in problem.error.hint for problem in found.problems] == [True]
