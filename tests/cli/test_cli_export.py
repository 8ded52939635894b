"""`srcli export --format trt`: which engines it has built, and where."""

from pathlib import Path

import pytest
from cli_runs import Command

from srcli.backends import tensorrt
from srcli.backends.tensorrt import store
from srcli.errors import BackendUnavailableError
from srcli.models.spec import ModelSpec
from srcli.settings import Settings


class Built(list[tuple[str, Path]]):
    """Files and folders; the precisions beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.precisions: list[str] = []


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    """What was asked to be built: file name and folder. Building itself has tests of its own."""
    asked = Built()

    def build_ahead(path: Path, spec: ModelSpec, options: Settings, folder: Path) -> Path:
        asked.append((path.name, folder))
        asked.precisions.append(options.precision)
        return folder / f"{path.stem}.engine"

    monkeypatch.setattr(tensorrt, "build_ahead", build_ahead)
    return asked


def test_a_model_gets_engines_of_every_scale_in_the_cache(
    srcli: Command, tiny_catalog: Path, built: Built
) -> None:
    run = srcli("export", "tiny", "--format", "trt")
    assert run.code == 0, run.err
    assert built == [(f"tiny-x{scale}.onnx", store.folder_of_engines()) for scale in (2, 3, 4)]
    assert [Path(line).name for line in run.out.split()] == [f"tiny-x{scale}.engine" for scale in (2, 3, 4)]
    assert "3 engines ready" in run.err


def test_an_onnx_file_gets_one_engine(srcli: Command, tiny_models: Path, built: Built) -> None:
    run = srcli("export", str(tiny_models / "tiny-x3.onnx"), "--format", "trt", "-o", "engines")
    assert run.code == 0, run.err
    assert built == [("tiny-x3.onnx", Path("engines"))]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tiny",), 2, "Models are exported already"),
        (("nosuch",), 1, "nosuch: no such checkpoint"),
        (("tiny", "--format", "plan"), 2, "onnx or trt"),
        (("nosuch", "--format", "trt"), 2, "nosuch"),
        (("nosuch.onnx", "--format", "trt"), 2, "does not exist"),
        (("tiny", "--format", "trt", "--precision", "int8"), 2, "fp32 or fp16"),
        (("tiny", "--format", "trt", "--weights", "fp16"), 2, "exported already"),
    ],
)
def test_impossible_engines_are_refused(
    srcli: Command,
    tiny_catalog: Path,
    built: Built,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    run = srcli("export", *arguments)
    assert (run.code, built) == (code, [])
    assert words in run.err


@pytest.mark.parametrize(
    ("asked", "precision"),
    [((), "auto"), (("--precision", "fp32"), "fp32"), (("--precision", "fp16"), "fp16")],
)
def test_engines_have_the_precision_asked_for(
    srcli: Command, tiny_models: Path, built: Built, asked: tuple[str, ...], precision: str
) -> None:
    run = srcli("export", str(tiny_models / "tiny-x3.onnx"), "--format", "trt", *asked)
    assert run.code == 0, run.err
    assert built.precisions == [precision]


def test_the_backends_refusal_is_shown(
    srcli: Command, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> Path:
        raise BackendUnavailableError("No GPU.", "Buy one.")

    monkeypatch.setattr(tensorrt, "build_ahead", refuse)
    run = srcli("export", "tiny", "--format", "trt")
    assert run.code == 2
    assert "No GPU." in run.err


def test_a_missing_gpu_is_reported_before_the_export(srcli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise BackendUnavailableError("No GPU.", "Buy one.")

    monkeypatch.setattr(tensorrt, "builder_ahead", refuse)
    Path("last.pt").write_bytes(b"never read")
    run = srcli("export", "last.pt", "--format", "trt")
    assert run.code == 2
    assert run.err.count("No GPU.") == 1
    assert "last.pt" not in run.err
