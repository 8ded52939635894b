"""Bad input through the real command: a clear message, the right exit code, and the rest is done."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runs import Command, picture

from srcli.backends import registry
from srcli.io import pictures

BICUBIC = ("--backend", "bicubic")


def halves(path: str) -> None:
    """A picture of which the second half is missing."""
    data = picture(path, 64, 64).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def loop(path: str) -> None:
    """A link to itself."""
    Path(path).symlink_to(path)


BAD_FILES: dict[str, Callable[[str], object]] = {
    "empty.png": lambda path: Path(path).touch(),
    "cut.png": halves,
    "cut.jpg": halves,
    "cut.webp": halves,
    "text.png": lambda path: Path(path).write_text("I am no picture"),
    "noise.jpg": lambda path: Path(path).write_bytes(b"\xff\xd8\xff" + bytes(range(256))),
    "folder.png": lambda path: Path(path).mkdir(),
    "missing.png": lambda path: None,
    "missing*.png": lambda path: None,
    "loop.png": loop,
    "a.png/below.png": lambda path: None,
    "x" * 300 + ".png": lambda path: None,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_and_explained_and_the_rest_goes_on(srcli: Command, name: str) -> None:
    for good in ("a.png", "z.png"):
        picture(good)
    BAD_FILES[name](name)
    run = srcli("upscale", "a.png", name, "z.png", *BICUBIC)
    assert run.code == 1
    assert name in run.err
    (error,) = [line for line in run.err.splitlines() if line.startswith("error:")]
    hint = run.err.splitlines()[run.err.splitlines().index(error) + 1]
    assert hint.startswith("  ")
    assert hint.strip().endswith((".", "'", '"'))
    assert "1 failed" in run.err
    assert written() == ["a.png", "z.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_without_permission_is_named(srcli: Command) -> None:
    picture("a.png"), picture("b.png").chmod(0)
    run = srcli("upscale", "a.png", "b.png", *BICUBIC)
    assert (run.code, written()) == (1, ["a.png"])
    assert "b.png" in run.err


def written() -> list[str]:
    """Everything below the output folder, temporary files included."""
    return sorted(path.name for path in Path("upscaled").rglob("*"))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (1, 40)])
def test_odd_shapes_are_no_bad_input(srcli: Command, tiny_catalog: Path, shape: tuple[int, int]) -> None:
    picture("a.png", *shape)
    run = srcli("upscale", "a.png", "-s", "2", "--model", "tiny", "--backend", "onnxruntime")
    assert run.code == 0, run.err
    header = pictures.probe("upscaled/a.png")
    assert (header.height, header.width) == (2 * shape[0], 2 * shape[1])


@pytest.mark.parametrize(
    "name",
    [
        "two words.png",
        'it\'s "quoted".png',
        "new\nline.png",
        "🦊 é ß.png",
        "[bold]markup[red].png",
        "star*.png",
        "%s %(x)s {x}.png",
        "-s.png",
        os.fsdecode(b"no\xfftext.png"),
    ],
)
def test_names_of_any_kind(srcli: Command, name: str) -> None:
    picture(Path(name))
    picture("bad/x.png").rename(Path("bad") / name)
    (Path("bad") / name).write_bytes(b"no picture")
    run = srcli("upscale", "-s", "2", *BICUBIC, "--", name, f"bad/{name}")
    assert run.code == 1
    assert len(written()) == 1
    message = next(line for line in run.err.splitlines() if line.startswith("error:"))
    assert "is not a picture" in message  # all of it on one line, whatever the name


def test_an_output_folder_that_is_the_input_folder(srcli: Command) -> None:
    before = picture("in/a.png").read_bytes()
    run = srcli("upscale", "in", "-o", "in", *BICUBIC)
    assert run.code == 2
    assert "also an input" in run.err
    assert "-o" in run.err
    assert Path("in/a.png").read_bytes() == before


def test_an_output_that_would_replace_its_input(srcli: Command) -> None:
    before = picture("in/a.png").read_bytes()
    run = srcli("upscale", "in/a.png", "-o", "in", "--overwrite", *BICUBIC)
    assert run.code == 2
    assert "in/a.png: this output would overwrite an input" in run.err
    assert Path("in/a.png").read_bytes() == before


@pytest.mark.parametrize("name", ["a.png", "upscaled/a.png", "./a.png"])
def test_a_report_never_replaces_a_picture(srcli: Command, name: str) -> None:
    before = picture("a.png").read_bytes()
    run = srcli("upscale", "a.png", "--report", name, *BICUBIC)
    assert run.code == 2
    assert "replace a picture" in run.err
    assert Path("a.png").read_bytes() == before


@pytest.mark.parametrize("option", [("-o", "a.png/out"), ("-o", "a.png/x.png"), ("--report", "a.png/r.json")])
def test_places_that_cannot_be_written_are_refused_before_anything_starts(
    srcli: Command, option: tuple[str, str]
) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", *option, *BICUBIC)
    assert run.code == 1
    assert option[1] in run.err
    assert "a.png is not a folder" in run.err
    assert sorted(path.name for path in Path().iterdir()) == ["a.png"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files from anyone")
@pytest.mark.parametrize("option", [("-o", "/proc/out"), ("-o", "/proc/x.png"), ("--report", "/proc/r.json")])
def test_places_that_refuse_files_are_found_out_before_anything_starts(
    srcli: Command, option: tuple[str, str]
) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", *option, *BICUBIC)
    assert run.code == 1
    assert f"{option[1]}: nothing can be written to /proc" in run.err
    assert not Path("upscaled").exists()


def test_a_report_of_an_impossible_name_is_found_out_before_anything_starts(srcli: Command) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", "--report", "x" * 300 + ".json", *BICUBIC)
    assert run.code == 1
    assert "no file can have this name" in run.err
    assert not Path("upscaled").exists()


def test_a_link_to_nowhere_says_so(srcli: Command) -> None:
    picture("a.png")
    Path("b.png").symlink_to("gone.png")
    run = srcli("upscale", "a.png", "b.png", *BICUBIC)
    assert run.code == 1
    assert "It is a link to gone.png, which leads nowhere." in run.err


def test_a_folder_where_the_output_should_be_fails_that_picture_only(srcli: Command) -> None:
    for name in ("a.png", "b.png"):
        picture(name)
    Path("upscaled/a.png").mkdir(parents=True)
    run = srcli("upscale", "a.png", "b.png", "--overwrite", *BICUBIC)
    assert run.code == 1
    assert "upscaled/a.png is a folder" in run.err
    assert written() == ["a.png", "b.png"]


def test_a_picture_too_large_for_its_format_is_no_success(srcli: Command) -> None:
    picture("wide.jpg", 1, 20_000)
    run = srcli("upscale", "wide.jpg", "-s", "4", *BICUBIC)
    assert run.code == 1
    assert "80000x4" in run.err
    assert written() == []


def test_what_headers_show_is_told_by_a_dry_run_too(srcli: Command) -> None:
    """Too large for its format, a sub-folder that cannot be made: the rest is planned, nothing written."""
    picture("in/wide.webp", 1, 5000)
    picture("in/sub/b.png")
    picture("in/c.png")
    Path("upscaled").mkdir()
    Path("upscaled/sub").write_bytes(b"in the way")
    dry = srcli("upscale", "in", "-r", "--dry-run", *BICUBIC)
    assert dry.code == 1
    assert "20000x4 pixels as WEBP" in dry.err
    assert "upscaled/sub is not a folder" in dry.err
    assert "in/c.png 9×6" in dry.out
    assert written() == ["sub"]
    real = srcli("upscale", "in", "-r", *BICUBIC)
    assert real.code == 1
    assert [line for line in real.err.splitlines() if line.startswith("error:")] == [
        line for line in dry.err.splitlines() if line.startswith("error:")
    ]
    assert written() == ["c.png", "sub"]


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        picture(f"in/{number}.png")
    write = os.fsync
    done: list[int] = []

    def fsync(file: int) -> None:
        done.append(file)
        if len(done) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file)

    monkeypatch.setattr(os, "fsync", fsync)
    run = srcli("upscale", "in", "--json", "-j", "1", *BICUBIC)
    assert run.code == 1
    report = json.loads(run.out)
    assert report["disk_full"] is True
    assert report["interrupted"] is False
    assert [report["counts"][name] for name in ("written", "failed", "pending")] == [3, 1, 5]
    assert "the disk is full with 5 left; the same command goes on" in run.err
    assert run.err.count("error:") == 1
    assert len(written()) == 3
    monkeypatch.setattr(os, "fsync", write)
    again = srcli("upscale", "in", *BICUBIC)
    assert again.code == 0
    assert len(written()) == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-s", "17"), ("17", "out of range")),
        (("-s", "0.5"), ("0.5", "out of range")),
        (("-s", "nan"), ("nan", "out of range")),
        (("-s", "big"), ("-s", "valid number")),
        (("-s", "2", "--width", "10"), ("-s cannot be combined", "Keep one")),
        (("--long-edge", "10", "--width", "10"), ("--long-edge cannot be combined",)),
        (("--width", "0"), ("--width", "1")),
        (("--backend", "magic"), ("magic", "openvino")),
        (("--precision", "f64"), ("f64", "bf16")),
        (("--device", "cuda", "--backend", "bicubic"), ("cuda", "cpu")),
        (("--precision", "bf16", "--backend", "bicubic"), ("bf16", "fp32")),
        (("--format", "gif"), ("gif", "png")),
        (("-o", "out.gif"), ("a.png", "out.gif", ".png")),
        (("--memory", "lots"), ("lots", "512M")),
        (("--memory", "0"), ("0", "512M")),
        (("--quality", "101"), ("--quality", "100")),
        (("-j", "0"), ("-j", "1")),
        (("--tile", "2", "--exact-halo", "--model", "tiny"), ("tile",)),
        (("--model", "tinny"), ("tinny", "Did you mean 'tiny'?")),
        (("--model", "nosuch.onnx"), ("nosuch.onnx", "does not exist")),
        (("--model", "."), ("folder",)),
        (("--nonsense",), ("--nonsense",)),
    ],
)
def test_wrong_usage_is_explained_and_nothing_starts(
    srcli: Command, tiny_catalog: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    picture("a.png")
    run = srcli("upscale", "a.png", *options)
    assert run.code == 2, run.err
    for word in words:
        assert word in run.err
    assert not Path("upscaled").exists()


def test_a_damaged_model_is_named(srcli: Command) -> None:
    picture("a.png")
    Path("m.onnx").write_bytes(b"\x0a\x05no")
    run = srcli("upscale", "a.png", "--model", "m.onnx")
    assert run.code == 1
    assert "m.onnx" in run.err
    assert not Path("upscaled").exists()


def test_a_scale_the_model_lacks_is_reached_with_the_networks_it_has(
    srcli: Command, tiny_models: Path
) -> None:
    picture("a.png", 8, 10)
    run = srcli("upscale", "a.png", "-s", "3", "--model", str(tiny_models / "tiny-x2.onnx"))
    assert run.code == 0, run.err
    assert pictures.probe("upscaled/a.png").width == 30


def test_a_missing_backend_says_how_to_install_it(srcli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("a.png")
    monkeypatch.setattr(registry, "find_spec", lambda package: None)
    for options in ((), ("--backend", "openvino")):
        run = srcli("upscale", "a.png", *options)
        assert run.code == 2
        assert 'pip install "srcli[cpu]"' in run.err
    assert not Path("upscaled").exists()


@pytest.mark.parametrize(
    ("command", "extra", "missing"),
    [
        (("train", "."), "train", ("torch", "onnx")),
        (("train", "."), "train", ("tensorboard",)),  # extras other than train bring PyTorch without it
        (("evaluate", ".", "--model", "c.pt"), "train", ("torch", "onnx")),
        (("export", "c.pt"), "export", ("torch", "onnx")),
    ],
)
def test_a_missing_extra_says_how_to_install_it(
    srcli: Command,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    extra: str,
    missing: tuple[str, ...],
) -> None:
    for name in list(sys.modules):
        if name.startswith(("srcli_train", "srcli_export", "torch.utils.tensorboard")):
            monkeypatch.delitem(sys.modules, name)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    run = srcli(*command)
    assert run.code == 2
    assert f'pip install "srcli[{extra}]"' in run.err


def test_an_empty_input_is_no_folder(srcli: Command) -> None:
    """As of a variable that is not set; the current folder would be the worst guess."""
    picture("a.png")
    run = srcli("upscale", "", *BICUBIC)
    assert run.code == 2
    assert "An input is empty" in run.err
    assert not Path("upscaled").exists()
