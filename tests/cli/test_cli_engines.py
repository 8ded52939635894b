"""`srcli export --format trt`: which engines it has built, and where."""

from pathlib import Path

import pytest
from cli_runs import Command

from srcli.backends.base import BackendOptions
from srcli.backends.tensorrt import engine, store
from srcli.errors import BackendUnavailableError
from srcli.models.spec import ModelSpec


class Built(list[tuple[str, Path]]):
    """Files and folders; the precisions beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.precisions: list[str] = []


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    """What was asked to be built: file name and folder. Building itself has tests of its own."""
    asked = Built()

    def build_ahead(path: Path, spec: ModelSpec, options: BackendOptions, folder: Path) -> Path:
        asked.append((path.name, folder))
        asked.precisions.append(options.precision)
        options.tell(f"building {spec.name}")
        return folder / f"{path.stem}.engine"

    monkeypatch.setattr(engine, "build_ahead", build_ahead)
    return asked


def test_a_model_gets_the_engine_of_every_scale_where_the_backend_looks(
    srcli: Command, tiny_catalog: Path, built: Built
) -> None:
    run = srcli("export", "tiny", "--format", "trt")
    assert run.code == 0, run.err
    assert built == [(f"tiny-x{scale}.onnx", store.folder_of_engines()) for scale in (2, 3, 4)]
    assert [Path(line).name for line in run.out.split()] == [f"tiny-x{scale}.engine" for scale in (2, 3, 4)]
    assert "3 engines ready" in run.err


def test_an_onnx_file_gets_its_own(srcli: Command, tiny_models: Path, built: Built) -> None:
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
def test_what_cannot_be_built_is_said(
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
def test_an_engine_computes_in_what_was_asked_for(
    srcli: Command, tiny_models: Path, built: Built, asked: tuple[str, ...], precision: str
) -> None:
    run = srcli("export", str(tiny_models / "tiny-x3.onnx"), "--format", "trt", *asked)
    assert run.code == 0, run.err
    assert built.precisions == [precision]


def test_the_backends_refusal_is_passed_on(
    srcli: Command, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> Path:
        raise BackendUnavailableError("No GPU.", "Buy one.")

    monkeypatch.setattr(engine, "build_ahead", refuse)
    run = srcli("export", "tiny", "--format", "trt")
    assert run.code == 2
    assert "No GPU." in run.err


def test_what_cannot_build_is_said_before_a_checkpoint_is_exported(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise BackendUnavailableError("No GPU.", "Buy one.")

    monkeypatch.setattr(engine, "found_ahead", refuse)
    Path("last.pt").write_bytes(b"never read")
    run = srcli("export", "last.pt", "--format", "trt")
    assert run.code == 2
    assert run.err.count("No GPU.") == 1
    assert "last.pt" not in run.err
