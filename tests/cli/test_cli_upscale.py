"""`srcli upscale` from options to files, with bicubic in place of a network where none is needed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks
from cli_runs import Command, picture
from PIL import Image

from srcli import Upscaler
from srcli.io import pictures, provenance
from srcli.jobs.folder import FolderRun
from srcli.models import auto, catalog
from srcli.models.spec import TrainingFacts

BICUBIC = ("--backend", "bicubic")


def size(path: Path | str) -> tuple[int, int]:
    header = pictures.probe(path)
    return header.height, header.width


def files(folder: Path | str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_picture_comes_out_four_times_larger_and_the_end_says_where(srcli: Command) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", *BICUBIC)
    assert run.code == 0
    assert size("upscaled/a.png") == (24, 36)
    assert "1 picture is in upscaled" in run.err
    assert "bicubic fp32 on cpu" in run.err
    assert run.out.splitlines() == ["upscaled/a.png"]  # stdout is no terminal here


def test_file_folder_pattern_and_python_call_give_the_same_pixels(srcli: Command) -> None:
    picture("in/a.png", 20, 30)
    for name, source in (("o1", "in/a.png"), ("o2", "in"), ("o3", "in/*.png")):
        assert srcli("upscale", source, "-s", "2.5", "-o", name, *BICUBIC).code == 0
    expected = Upscaler("bicubic", 2.5)(pictures.read(Path("in/a.png")).pixels)
    for name in ("o1", "o2", "o3"):
        np.testing.assert_array_equal(pictures.read(Path(name, "a.png")).pixels, expected)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_any_way_in_gives_the_same_pixels_through_a_network_in_tiles(
    srcli: Command, tiny_catalog: Path, backend: str
) -> None:
    """Same backend, precision, tiles and threads: the same operations in the same order, so the same bits."""
    pytest.importorskip(backend)
    picture("in/a.png", 60, 70)
    options = ("--model", "tiny", "--backend", backend, "--precision", "fp32", "--threads", "1")
    for out, source in (("o1", "in/a.png"), ("o2", "in"), ("o3", "in/*.png")):
        run = srcli("upscale", source, "-s", "2.5", "--tile", "32", "-o", out, *options)
        assert run.code == 0, run.err
    tiles: list[int] = []
    upscale = Upscaler("tiny", 2.5, backend=backend, precision="fp32", tile=32, threads=1)
    expected = upscale(pictures.read("in/a.png").pixels, progress=lambda done, total: tiles.append(done))
    assert len(tiles) > 4
    for out in ("o1", "o2", "o3"):
        np.testing.assert_array_equal(pictures.read(Path(out, "a.png")).pixels, expected)


def test_many_workers_and_little_memory_change_no_bit(srcli: Command, tiny_catalog: Path) -> None:
    for index in range(7):
        picture(f"in/{index}.png", 5 + 7 * index, 40 - 5 * index)
    network = ("--model", "tiny", "-s", "2", "--backend", "onnxruntime", "--threads", "1")
    for out, options in (("one", ("-j", "1", "--memory", "140M")), ("many", ("-j", "4"))):
        assert srcli("upscale", "in", "-o", out, *network, *options).code == 0
    for name in files("one"):
        assert Path("one", name).read_bytes() == Path("many", name).read_bytes()
    assert files("one") == files("many") == [f"{index}.png" for index in range(7)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-s", "1"), (6, 9)),
        (("-s", "2.5"), (15, 23)),
        (("--width", "27"), (18, 27)),
        (("--height", "12"), (12, 18)),
        (("--width", "20", "--height", "30"), (30, 20)),
        (("--long-edge", "18"), (12, 18)),
        (("--long-edge", "3"), (2, 3)),
    ],
)
def test_sizes(srcli: Command, options: tuple[str, ...], expected: tuple[int, int]) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", *options, *BICUBIC)
    assert run.code == 0, run.err
    assert size("upscaled/a.png") == expected


def test_a_network_runs_for_a_size_in_pixels_and_is_named(srcli: Command, tiny_catalog: Path) -> None:
    picture("a.png", 10, 12)
    run = srcli("upscale", "a.png", "--model", "tiny", "--width", "30", "--backend", "onnxruntime", "--json")
    assert run.code == 0, run.err
    result = json.loads(run.out)["pictures"][0]
    assert result["output_size"] == {"width": 30, "height": 25}
    assert (result["model"], result["backend"], result["precision"]) == ("tiny", "onnxruntime", "fp32")
    assert result["scales"] == [3]


def test_bicubic_is_named_once(srcli: Command) -> None:
    picture("a.png")
    for more in ((), ("--dry-run",)):
        run = srcli("upscale", "a.png", "--overwrite", *BICUBIC, *more)
        assert run.err.endswith("made by bicubic fp32 on cpu (as asked for).\n")


def test_the_report_says_what_made_each_picture(srcli: Command, tiny_catalog: Path) -> None:
    picture("small.png", 10, 12)
    picture("wide.png", 10, 60)
    network = ("--model", "tiny", "--backend", "onnxruntime")
    run = srcli("upscale", "small.png", "wide.png", *network, "--width", "40", "--json")
    made = [(p["model"], p["scales"], p["backend"]) for p in json.loads(run.out)["pictures"]]
    assert made == [("tiny", [4], "onnxruntime"), ("bicubic", [], "bicubic")]
    assert "made by tiny and bicubic, onnxruntime fp32 on cpu" in run.err
    run = srcli("upscale", "wide.png", *network, "--width", "40", "--overwrite")
    assert run.err.endswith("made by bicubic.\n")


def test_exact_halo_and_ensemble_and_tile_reach_the_network(srcli: Command, tiny_catalog: Path) -> None:
    picture("a.png", 60, 70)
    network = ("upscale", "a.png", "--model", "tiny", "-s", "2", "--backend", "onnxruntime")
    options = {"whole": (), "tiled": ("--tile", "40", "--exact-halo"), "mean": ("--ensemble",)}
    for out, more in options.items():
        run = srcli(*network, *more, "-o", out)
        assert run.code == 0, run.err
    whole, tiled, mean = (pictures.read(Path(out, "a.png")).pixels.astype(int) for out in options)
    assert abs(whole - tiled).max() <= 1  # kernels may round the last float bit differently
    assert (whole != mean).any()


def test_the_tree_is_mirrored(srcli: Command) -> None:
    for name in ("in/a.png", "in/x/a.png", "in/x/y/b.png"):
        picture(name)
    assert srcli("upscale", "in", "-r", *BICUBIC).code == 0
    assert files("upscaled") == ["a.png", "x/a.png", "x/y/b.png"]


def test_pictures_that_cannot_be_read_are_told(srcli: Command) -> None:
    picture("in/a.png")
    for name in ("IMG_1.JXL", "IMG_2.jxl", "raw/b.CR2", "notes.txt", ".hidden.jxl"):
        path = Path("in", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert "note: 2 pictures of other kinds (.jxl) left out;" in srcli("upscale", "in", *BICUBIC).err
    assert "3 pictures of other kinds (.cr2, .jxl)" in srcli("upscale", "in", "-r", *BICUBIC).err
    assert "other kinds" not in srcli("upscale", "in", "-q", *BICUBIC).err


@pytest.mark.parametrize("clean", ["tiny", "edsr"])  # a name, and the family it is the best of
def test_auto_tells_which_networks_made_the_pictures(
    clean: str, srcli: Command, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "CLEAN", clean)
    monkeypatch.setattr(auto, "PHOTO", "tiny")
    picture("a.png", 40, 40)
    run = srcli("upscale", "a.png", "--model", "auto", "-s", "2", "--exact-halo", "--report", "r.json")
    assert run.code == 0, run.err
    assert "made by tiny, " in run.err
    assert json.loads(Path("r.json").read_text())["engine"]["model"] == "auto"


@pytest.fixture
def both(srcli: Command, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean network and one for damaged pictures in place of the shipped ones, chosen by width."""
    folder = tmp_path_factory.mktemp("models")
    for scale in (2, 3, 4):
        tiny_networks.write(folder, tiny_networks.tiny_spec(scale))
        spec = replace(tiny_networks.tiny_spec(scale, "mend"), training=TrainingFacts(recipe="photo"))
        tiny_networks.write(folder, spec, seed=1)
    monkeypatch.setattr(catalog, "MODELS_FOLDER", folder)
    monkeypatch.setattr(auto, "CLEAN", "tiny")
    monkeypatch.setattr(auto, "PHOTO", "mend")
    choose = auto.choose
    by_width = {9: "tiny", 12: "mend"}
    monkeypatch.setattr(
        auto,
        "choose",
        lambda model, image: by_width[image.shape[1]] if model == "auto" else choose(model, image),
    )


@pytest.mark.usefixtures("both")
def test_x1_cleans_with_a_photo_network(srcli: Command) -> None:
    picture("a.png", 8, 12)
    run = srcli("upscale", "a.png", "-s", "1", "--model", "mend", "--json")
    assert run.code == 0, run.err
    (result,) = json.loads(run.out)["pictures"]
    assert (result["status"], result["scales"], result["model"]) == ("written", [2], "mend")
    assert result["output_size"] == result["input_size"]
    assert not np.array_equal(
        pictures.read(Path("upscaled/a.png")).pixels, pictures.read(Path("a.png")).pixels
    )
    again = srcli("upscale", "a.png", "-s", "1", "--model", "mend", "--json")
    assert json.loads(again.out)["counts"]["skipped"] == 1


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("size", [("-s", "1"), ("--width", "9")])
def test_x1_with_a_clean_network_has_nothing_to_do(srcli: Command, size: tuple[str, str]) -> None:
    picture("a.png")
    for dry in ((), ("--dry-run",)):
        run = srcli("upscale", "a.png", *size, "--model", "tiny", *dry)
        assert run.code == 0, run.err
        assert "nothing to do for 1 picture" in run.err
        assert not Path("upscaled/a.png").exists()


@pytest.mark.usefixtures("both")
def test_x1_with_auto_cleans_what_is_degraded_and_leaves_the_rest(srcli: Command) -> None:
    picture("in/clean.png")
    picture("in/noisy.png", 8, 12)
    run = srcli("upscale", "in", "-s", "1", "--json")
    assert run.code == 0, run.err
    report = json.loads(run.out)
    assert [one["status"] for one in report["pictures"]] == ["unchanged", "written"]
    assert "mend also cleans" in report["pictures"][0]["notes"][0]
    assert [path.name for path in Path("upscaled").iterdir()] == ["noisy.png"]
    again = srcli("upscale", "in", "-s", "1", "--json")
    assert [one["status"] for one in json.loads(again.out)["pictures"]] == ["unchanged", "skipped"]


def test_linked_folders_are_searched_and_a_link_that_is_passed_by_is_told(srcli: Command) -> None:
    picture("in/a.png"), picture("elsewhere/b.png")
    Path("in/2024").symlink_to(Path("elsewhere").resolve())
    Path("in/self").symlink_to(Path("in").resolve())
    run = srcli("upscale", "in", "-r", *BICUBIC)
    assert run.code == 0
    assert files("upscaled") == ["2024/b.png", "a.png"]
    assert "note: in/self leads to a folder that is searched already" in run.err
    assert "in/2024 leads" not in run.err
    assert "note" not in srcli("upscale", "in", "-r", "-q", "--overwrite", *BICUBIC).err


def test_a_lossless_webp_stays_lossless(srcli: Command) -> None:
    header = pictures.read(picture("a.png"))
    pictures.write("a.webp", replace(header, lossless=True))
    for out, options in (("kept", ()), ("lossy", ("--quality", "95"))):
        assert srcli("upscale", "a.webp", "-o", out, *options, *BICUBIC).code == 0
    assert [pictures.read(Path(out, "a.webp")).lossless for out in ("kept", "lossy")] == [True, False]


def test_names_do_not_collide_and_every_picture_is_there(srcli: Command) -> None:
    for name in ("x/a.png", "x/a.jpg", "y/a.png", "y/A.png"):
        picture(name)
    assert srcli("upscale", "x", "y", "--format", "webp", *BICUBIC).code == 0
    names = files("upscaled")
    assert len({name.casefold() for name in names}) == 4
    assert all(name.endswith(".webp") for name in names)


def test_format_and_quality(srcli: Command) -> None:
    picture("a.png", 40, 40)
    for quality in ("20", "95"):
        run = srcli("upscale", "a.png", "--format", "jpg", "--quality", quality, "-o", quality, *BICUBIC)
        assert run.code == 0
    assert pictures.probe("20/a.jpg").format == "jpeg"
    assert Path("20/a.jpg").stat().st_size < Path("95/a.jpg").stat().st_size


def test_a_file_name_as_output(srcli: Command) -> None:
    picture("a.png")
    assert srcli("upscale", "a.png", "-o", "new/large.bmp", *BICUBIC).code == 0
    assert pictures.probe("new/large.bmp").format == "bmp"


def statuses(path: str = "r.json") -> list[str]:
    return [one["status"] for one in json.loads(Path(path).read_text())["pictures"]]


@pytest.mark.parametrize("name", ["new.jpg/", "new.gif/", "new.mkv/"])
def test_a_slash_at_the_end_makes_any_name_a_folder(srcli: Command, name: str) -> None:
    picture("a.png")
    assert srcli("upscale", "a.png", "-o", name, *BICUBIC).code == 0
    assert Path(name, "a.png").is_file()
    assert srcli("upscale", "a.png", "-o", "a.png/", *BICUBIC).code == 1  # a file is there


def test_the_same_command_goes_on_where_it_stopped(srcli: Command) -> None:
    picture("in/a.png")
    assert srcli("upscale", "in", "-s", "2", *BICUBIC).code == 0
    before = Path("upscaled/a.png").stat().st_mtime_ns
    picture("in/b.png")
    assert srcli("upscale", "in", "-s", "2", "--report", "r.json", *BICUBIC).code == 0
    assert statuses() == ["skipped", "written"]
    assert Path("upscaled/a.png").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "other",
    [("-s", "3"), ("--width", "20"), ("-s", "2", "--ensemble"), ("-s", "2", "--quality", "50"), ("-s", "1")],
)
def test_what_other_settings_made_is_refused_and_stays(srcli: Command, other: tuple[str, ...]) -> None:
    picture("in/a.jpg")
    assert srcli("upscale", "in", "-s", "2", *BICUBIC).code == 0
    before = Path("upscaled/a.jpg").read_bytes()
    run = srcli("upscale", "in", *other, "--report", "r.json", *BICUBIC)
    assert (run.code, statuses()) == (1, ["failed"])
    assert "--overwrite" in run.err
    assert Path("upscaled/a.jpg").read_bytes() == before
    assert srcli("upscale", "in", *other, "-o", "elsewhere", *BICUBIC).code == 0
    assert srcli("upscale", "in", *other, "--overwrite", *BICUBIC).code == 0
    assert Path("upscaled/a.jpg").read_bytes() == Path("elsewhere/a.jpg").read_bytes()


@pytest.mark.parametrize("same", [("--threads", "1"), ("--memory", "2G"), ("-j", "1"), ("--tile", "64")])
def test_settings_that_change_no_pixel_do_not_count(srcli: Command, same: tuple[str, ...]) -> None:
    picture("in/a.png")
    assert srcli("upscale", "in", *BICUBIC).code == 0
    assert srcli("upscale", "in", *same, "--report", "r.json", *BICUBIC).code == 0
    assert statuses() == ["skipped"]


def test_another_input_under_the_same_name_is_noticed(srcli: Command) -> None:
    picture("in/a.bmp")
    assert srcli("upscale", "in", "--format", "png", *BICUBIC).code == 0
    content = bytearray(Path("in/a.bmp").read_bytes())
    content[-20] ^= 0xFF
    Path("in/a.bmp").write_bytes(content)
    later = time.time() + 10
    os.utime("in/a.bmp", (later, later))
    run = srcli("upscale", "in", "--format", "png", "--report", "r.json", *BICUBIC)
    assert (run.code, statuses()) == (1, ["failed"])


def test_an_input_that_was_only_touched_is_the_same(srcli: Command) -> None:
    picture("in/a.png")
    assert srcli("upscale", "in", *BICUBIC).code == 0
    later = time.time() + 10
    os.utime("in/a.png", (later, later))
    assert srcli("upscale", "in", "--report", "r.json", *BICUBIC).code == 0
    assert statuses() == ["skipped"]


def test_results_have_the_dates_of_their_inputs(srcli: Command) -> None:
    picture("in/a.png")
    os.utime("in/a.png", (1_000_000_000, 1_000_000_000))
    assert srcli("upscale", "in", *BICUBIC).code == 0
    assert Path("upscaled/a.png").stat().st_mtime == 1_000_000_000
    assert srcli("upscale", "in", "-o", "now", "--no-times", *BICUBIC).code == 0
    assert Path("now/a.png").stat().st_mtime > 1_700_000_000


def test_no_input_is_read_again_whose_result_has_its_date(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("in/a.png")
    assert srcli("upscale", "in", *BICUBIC).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "file_sha256", lambda path: pytest.fail(f"{path} was read"))
        assert srcli("upscale", "in", "--report", "r.json", *BICUBIC).code == 0
    assert statuses() == ["skipped"]


def test_another_input_with_the_same_date_and_size_is_noticed(srcli: Command) -> None:
    picture("in/a.bmp")
    assert srcli("upscale", "in", "--format", "png", *BICUBIC).code == 0
    facts, content = Path("in/a.bmp").stat(), bytearray(Path("in/a.bmp").read_bytes())
    content[-20] ^= 0xFF
    time.sleep(0.02)  # times of changes are as coarse as the kernel's clock
    Path("in/a.bmp").write_bytes(content)
    os.utime("in/a.bmp", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    run = srcli("upscale", "in", "--format", "png", "--report", "r.json", *BICUBIC)
    assert (run.code, statuses()) == (1, ["failed"])


def test_a_page_stays_as_large_on_paper(srcli: Command) -> None:
    picture("in/a.png")
    with Image.open("in/a.png") as image:
        image.save("in/a.png", dpi=(300, 300))
    assert srcli("upscale", "in", "-s", "4", *BICUBIC).code == 0
    assert srcli("upscale", "in", "-s", "4", "--keep-dpi", "-o", "kept", *BICUBIC).code == 0
    dpi = [round(Image.open(f"{folder}/a.png").info["dpi"][0]) for folder in ("upscaled", "kept")]
    assert dpi == [1200, 300]


@pytest.mark.parametrize("unsaid", [("--format", "bmp"), ("--no-provenance",)])
def test_files_that_say_nothing_are_kept_and_counted_apart(srcli: Command, unsaid: tuple[str, ...]) -> None:
    picture("in/a.png")
    assert srcli("upscale", "in", *unsaid, *BICUBIC).code == 0
    run = srcli("upscale", "in", *unsaid, "--report", "r.json", *BICUBIC)
    assert (run.code, statuses()) == (0, ["kept"])
    assert "left alone" in run.err
    assert srcli("upscale", "in", *unsaid, "--overwrite", "--report", "r.json", *BICUBIC).code == 0
    assert statuses() == ["written"]


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_an_unreadable_output_is_an_error_and_not_done(srcli: Command, content: bytes) -> None:
    picture("in/a.png")
    Path("upscaled").mkdir()
    Path("upscaled/a.png").write_bytes(content)
    run = srcli("upscale", "in", "--report", "r.json", *BICUBIC)
    assert (run.code, statuses()) == (1, ["failed"])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.avif"])
def test_an_output_that_was_cut_off_is_an_error_and_not_done(srcli: Command, name: str) -> None:
    picture(f"in/{name}", 20, 30)
    assert srcli("upscale", "in", *BICUBIC).code == 0
    whole = Path("upscaled", name).read_bytes()
    Path("upscaled", name).write_bytes(whole[: len(whole) * 2 // 3])
    assert srcli("upscale", "in", "--report", "r.json", *BICUBIC).code == 1
    assert statuses() == ["failed"]


def test_a_folder_where_an_output_goes_is_refused(srcli: Command) -> None:
    picture("in/a.png")
    Path("upscaled/a.png").mkdir(parents=True)
    for more in ((), ("--dry-run",)):
        assert srcli("upscale", "in", *more, *BICUBIC).code == 1
    assert Path("upscaled/a.png").is_dir()


def test_an_input_moved_over_another_of_the_same_size_is_noticed(srcli: Command) -> None:
    picture("in/a.bmp")
    content = bytearray(Path("in/a.bmp").read_bytes())
    content[-20] ^= 0xFF
    Path("new.bmp").write_bytes(content)
    os.utime("new.bmp", (0, 0))
    assert srcli("upscale", "in", "--format", "png", *BICUBIC).code == 0
    os.utime("upscaled/a.png", (time.time() - 5,) * 2)
    Path("new.bmp").replace("in/a.bmp")
    assert srcli("upscale", "in", "--format", "png", "--report", "r.json", *BICUBIC).code == 1
    assert statuses() == ["failed"]


def test_an_input_that_changes_while_it_is_read_fails(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("in/a.bmp")
    read = pictures.read

    def changing(path: Path, **options: Any) -> pictures.Picture:
        result = read(path, **options)
        os.utime(path, (0, 0))
        return result

    monkeypatch.setattr(pictures, "read", changing)
    run = srcli("upscale", "in", "--format", "png", *BICUBIC)
    assert (run.code, files("upscaled")) == (1, [])


def test_an_input_that_goes_away_after_it_was_read_does_not_matter(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("in/a.png")
    write = pictures.write

    def removing(path: Path, picture: pictures.Picture, **options: Any) -> tuple[str, ...]:
        Path("in/a.png").unlink()
        return write(path, picture, **options)

    monkeypatch.setattr(pictures, "write", removing)
    assert srcli("upscale", "in", *BICUBIC).code == 0
    assert files("upscaled") == ["a.png"]


def test_too_little_memory_for_network_and_tile_is_refused(srcli: Command, tiny_catalog: Path) -> None:
    picture("a.png", 600, 600)
    options = ("--model", "tiny", "-s", "4", "--report", "r.json")
    assert srcli("upscale", "a.png", "--memory", "150M", *options).code == 1
    assert statuses() == ["failed"]
    assert srcli("upscale", "a.png", "--memory", "150M", "--tile", "64", *options).code == 0


def test_same_input_and_settings_give_the_same_bytes_anywhere(srcli: Command) -> None:
    picture("in/a.png")
    Path("moved").mkdir()
    Path("moved/b.png").write_bytes(Path("in/a.png").read_bytes())
    assert srcli("upscale", "in", "-o", "x", *BICUBIC).code == 0
    assert srcli("upscale", "moved", "-o", "y", "-j", "1", "--memory", "600M", *BICUBIC).code == 0
    assert Path("x/a.png").read_bytes() == Path("y/b.png").read_bytes()


def test_results_in_scratch_files_are_the_same_to_the_byte(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.jpg", "c.tif"):
        picture(f"in/{name}", 60, 80)
    assert srcli("upscale", "in", "-o", "ram", *BICUBIC).code == 0
    monkeypatch.setattr(FolderRun, "_limit", property(lambda run: 1000))
    assert srcli("upscale", "in", "-o", "scratch", *BICUBIC).code == 0
    for name in files("ram"):
        assert Path("ram", name).read_bytes() == Path("scratch", name).read_bytes()
    assert files("scratch") == files("ram"), "no scratch file is left"


def test_a_run_on_the_current_folder_does_not_eat_its_own_output(srcli: Command) -> None:
    picture("a.png")
    for _ in range(2):
        assert srcli("upscale", ".", "-r", *BICUBIC).code == 0
    assert files("upscaled") == ["a.png"]


def test_dry_run_says_what_would_be_done_and_writes_nothing(srcli: Command) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", "--dry-run", *BICUBIC)
    assert run.code == 0
    assert run.out == "a.png 9×6 -> upscaled/a.png 36×24\n"
    assert "1 picture would go to upscaled" in run.err
    assert not Path("upscaled").exists()


def test_json_on_stdout_equals_the_report(srcli: Command) -> None:
    picture("a.png")
    Path("bad.png").write_text("no picture")
    run = srcli("upscale", "a.png", "bad.png", "--json", "--report", "reports/out.json", *BICUBIC)
    assert run.code == 1
    report = json.loads(run.out)
    assert report == json.loads(Path("reports/out.json").read_text())
    assert [entry["status"] for entry in report["pictures"]] == ["written", "failed"]
    assert "bad.png" in report["pictures"][1]["error"]
    assert report["pictures"][0]["output_size"] == {"width": 36, "height": 24}


def test_quiet_says_nothing_but_errors(srcli: Command) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", "-q", *BICUBIC)
    assert (run.code, run.out, run.err) == (0, "", "")
    run = srcli("upscale", "nosuch.png", "-q", *BICUBIC)
    assert (run.code, run.err.count("\n")) == (1, 2)


@pytest.mark.parametrize("given", [("-o", ""), ("--report", "-")])
def test_an_unset_variable_is_no_folder_and_a_dash_no_file(srcli: Command, given: tuple[str, str]) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", *given, *BICUBIC)
    assert (run.code, run.out) == (2, "")
    assert [path.name for path in Path().iterdir()] == ["a.png"]


def test_notes_of_the_format_are_told(srcli: Command) -> None:
    pixels = np.dstack([np.zeros((4, 4, 3), np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)])
    pictures.write(Path("a.png"), pictures.Picture(pixels))
    run = srcli("upscale", "a.png", "--format", "jpeg", *BICUBIC)
    assert run.code == 0
    assert "note: a.png: " in run.err


@pytest.mark.skipif(os.name == "nt", reason="there are no such terminals")
def test_a_terminal_that_is_closed_ends_the_run_with_a_report(work: Path) -> None:
    import pty

    for index in range(60):
        picture(f"in/{index:02d}.png", 400, 600)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "srcli", "upscale", "in", "-s", "4", "--report", "r.json", *BICUBIC]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while b"pictures" not in seen:  # the bar
        seen += os.read(ours, 4096)
    os.close(ours)  # from now on writing fails
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 130
    report = json.loads(Path("r.json").read_text())
    assert report["interrupted"] is True
    assert report["counts"]["failed"] == 0
    assert report["counts"]["written"] == len(files("upscaled"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_an_interrupt_leaves_whole_files_and_the_same_command_goes_on(
    work: Path, number: signal.Signals
) -> None:
    for index in range(40):
        picture(f"in/{index:02d}.png", 200, 300)
    command = [sys.executable, "-c", "import sys; from srcli.cli.app import main; sys.exit(main())"]
    command += ["upscale", "in", "-s", "4", *BICUBIC]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == os.fspath(Path("upscaled/00.png"))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopping after what is at work." in err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    done = files("upscaled")
    assert 1 <= len(done) < 40
    assert all(name.endswith(".png") and not name.startswith(".") for name in done)
    assert all(pictures.read(Path("upscaled", name)).pixels.shape == (800, 1200, 3) for name in done[-2:])
