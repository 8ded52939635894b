"""`srcli upscale` on films: previews, pipes, several in one command."""

from pathlib import Path

import scenes
from cli_runs import Command, picture

BICUBIC = ("--backend", "bicubic", "-s", "2")


def film(name: str, frames: int = 12) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    scenes.write(path, scenes.Scene(frames=frames, width=64, height=48))
    return path


def test_previews_of_films_beside_pictures(srcli: Command) -> None:
    film("in/a.mkv"), film("in/b.mp4"), picture("in/c.png")
    run = srcli("upscale", "in", "--preview", "2", *BICUBIC)
    assert (run.code, run.out.split()) == (0, ["upscaled/a.preview.png", "upscaled/b.preview.png"])
    assert "1 picture left out" in run.err
    assert "2 previews are in upscaled" in run.err
    assert sorted(path.name for path in Path("upscaled").iterdir()) == ["a.preview.png", "b.preview.png"]


def test_a_preview_by_the_name_of_a_picture_or_of_the_film(srcli: Command) -> None:
    film("a.mkv")
    for out, made in (("sheet.png", "sheet.png"), ("large.mkv", "large.preview.png")):
        run = srcli("upscale", "a.mkv", "--preview", "1", "-o", out, *BICUBIC)
        assert (run.code, run.out.strip()) == (0, made), run.err
        assert Path(made).exists()
    assert not Path("large.mkv").exists()


def test_a_preview_without_films_is_refused(srcli: Command) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", "--preview", "2", *BICUBIC)
    assert (run.code, "--preview is for films" in run.err) == (2, True)
