"""`srcli upscale` on films: previews, pipes, several in one command."""

import json
import subprocess
import sys
from pathlib import Path

import copies
import pytest
import scenes
from cli_runs import Command, picture

from srcli.io.films.facts import probe

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


def test_what_is_no_film_in_a_folder_is_left_out_and_damaged_films_are_not(srcli: Command) -> None:
    film("in/film.mkv"), film("in/sound.mkv.mkv")
    Path("in/index.ts").write_text("export const one = 1;\n")
    for name in ("sound.mp4", "sound.webm", "sound.mkv", "sound.ts"):
        scenes.write(Path("in", name), scenes.Scene(codec=None, frames=25))
    run = srcli("upscale", "in", *BICUBIC)
    assert (run.code, len(run.out.split())) == (0, 2), run.err
    assert (
        "4 files with sound and no picture left out: in/sound.mkv, in/sound.mp4, in/sound.ts, ..." in run.err
    )
    assert "index" not in run.err + run.out
    for suffix in ("mkv", "mp4", "ts"):
        film(f"bad/head.{suffix}")
        data = Path(f"bad/head.{suffix}").read_bytes()
        Path(f"bad/head.{suffix}").write_bytes(bytes(2000) + data[2000:4000])
        Path(f"bad/zeros.{suffix}").write_bytes(bytes(5000))
        Path(f"bad/empty.{suffix}").touch()
    run = srcli("upscale", "bad", "--dry-run", *BICUBIC)
    assert (run.code, run.err.count("error: ")) == (1, 9), run.err


def test_sound_that_is_named_is_an_error(srcli: Command) -> None:
    scenes.write(Path("sound.mkv"), scenes.Scene(codec=None, frames=25))
    run = srcli("upscale", "sound.mkv", *BICUBIC)
    assert (run.code, "has no video stream, only audio" in run.err) == (1, True)


def test_options_of_films_alone_are_named_where_there_are_pictures_alone(srcli: Command) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", "--container", "mkv", "--still", "0", "--lossless", *BICUBIC)
    assert (run.code, "note: no effect without films: --lossless, --container, --still." in run.err) == (
        0,
        True,
    )
    run = srcli("upscale", "a.png", "--format", "png", "--overwrite", *BICUBIC)
    assert (run.code, "no effect" in run.err) == (0, False)
    film("b.mkv")
    run = srcli("upscale", "a.png", "b.mkv", "--codec", "H265", "--overwrite", *BICUBIC)
    assert (run.code, "no effect" in run.err) == (0, False)
    assert probe(Path("upscaled/b.mkv")).codec == "hevc"


def test_films_get_the_fast_networks_and_pictures_beside_them_do_not(srcli: Command) -> None:
    picture("in/a.png"), film("in/b.mkv", 2)
    run = srcli("upscale", "in", "-s", "2", "--device", "cpu", "--report", "report.json")
    assert (run.code, "auto, for films without a GPU: fast or fast-photo" in run.err) == (0, True), run.err
    made = [one["model"] for one in json.loads(Path("report.json").read_text())["pictures"]]
    assert [name.partition("-")[0] for name in made] == ["mdsr", "fast"]
    run = srcli("upscale", "in/a.png", "-s", "2", "--device", "cpu", "-o", "alone")
    assert (run.code, "without a GPU" in run.err) == (0, False)
    named = ("--model", "edsr", "--device", "cpu", "-s", "2")
    run = srcli("upscale", "in/b.mkv", "-o", "named.mkv", *named)
    assert (run.code, "edsr-baseline" in run.err, "without a GPU" in run.err) == (0, True, False), run.err


def piped(*arguments: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "srcli", "upscale", *arguments, *BICUBIC]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60)


def test_a_film_goes_through_pipes_with_all_its_streams(work: Path) -> None:
    source = film("a.mkv", 60)
    run = piped("-", "-o", "-", stdin=source.read_bytes())
    assert (run.returncode, b"1 film is in stdout" in run.stderr) == (0, True), run.stderr
    Path("large.mkv").write_bytes(run.stdout)
    facts = probe(Path("large.mkv"))
    assert (facts.codec, facts.width, facts.height) == ("ffv1", 128, 96)
    assert copies.numbers(Path("large.mkv")) == list(range(60))
    assert copies.times(Path("large.mkv")) == copies.times(source)
    assert copies.packets(Path("large.mkv"), "audio") == copies.packets(source, "audio")
    assert sorted(path.name for path in work.iterdir()) == ["a.mkv", "large.mkv"]


def test_y4m_in_and_out(work: Path) -> None:
    first = piped(str(film("a.mkv", 30)), "-o", "-", "--container", "y4m")
    assert (first.returncode, first.stdout[:10]) == (0, b"YUV4MPEG2 "), first.stderr
    second = piped("-", "-o", "out/b.mkv", "--lossless", stdin=first.stdout)
    assert (second.returncode, second.stdout.strip()) == (0, b"out/b.mkv"), second.stderr
    facts = probe(Path("out/b.mkv"))
    assert (facts.width, facts.height, facts.rate) == (256, 192, 25)
    assert copies.numbers(Path("out/b.mkv")) == list(range(30))
    assert [path.name for path in Path("out").iterdir()] == ["b.mkv"]


def test_a_reader_that_leaves_ends_the_run(work: Path) -> None:
    film("a.mkv", 400)
    command = [sys.executable, "-m", "srcli", "upscale", "a.mkv", "-o", "-", *BICUBIC]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait(30) == 1
    assert "the program that reads the film ended after" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.mkv", "-o", "-", "--json"), "--json and a film"),
        (("a.mkv", "-o", "-", "--container", "mp4"), "mp4 cannot be written to a pipe"),
        (("a.mkv", "-o", "-", "--container", "y4m", "--codec", "h265"), "Y4M is not coded"),
        (("-", "a.mkv"), "alone"),
        (("-",), "Nothing came from stdin"),
        (("c.png", "-o", "-"), "is a picture"),
    ],
)
def test_what_pipes_cannot_do_is_refused(arguments: tuple[str, ...], said: str, work: Path) -> None:
    film("a.mkv", 2), picture("c.png")
    run = piped(*arguments, stdin=b"")
    assert run.returncode in (1, 2)
    assert (said in run.stderr.decode(), run.stdout) == (True, b""), run.stderr
