"""A network's int8 file: when it is taken, that it is the same network, and what happens where it fails."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from srcli import Upscaler
from srcli.backends import openvino, registry
from srcli.backends.base import Batch, Engine
from srcli.errors import BackendUnavailableError, ModelFileError
from srcli.imaging.metrics import decibels
from srcli.models import catalog
from srcli.models.spec import ModelSpec
from srcli.precision import prefers_int8
from srcli.settings import Settings

pytest.importorskip("openvino")

NAMES = ("mdsr-baseline", "mdsr-photo")
LETTERING = (24, 0.5)
"""Limits of the int8 error on letters, on 0-255: largest, and root mean square; 18, 0.4 were measured."""


@pytest.fixture(params=[True, False])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the CPU is one on which int8 is fast."""
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: request.param)
    return bool(request.param)


def native() -> str:
    """What OpenVINO computes in here where int8 does not."""
    return "bf16" if openvino.has_bf16(openvino._core()) else "fp32"


def photograph(side: int = 72) -> np.ndarray:  # type: ignore[type-arg]
    return np.ascontiguousarray(data.rocket()[100 : 100 + side, 280 : 280 + side])


# Where?


@pytest.mark.parametrize(
    ("machine", "capabilities", "is_fast"),
    [
        ("x86_64", ["FP32", "INT8"], True),
        ("AMD64", ["FP32", "BF16", "INT8"], True),
        ("x86_64", ["FP32"], False),
        ("aarch64", ["FP32", "FP16", "INT8"], False),
        ("arm64", ["FP32", "FP16", "INT8"], False),
    ],
)
def test_int8_is_fast_on_x86(
    machine: str, capabilities: list[str], is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino.platform, "machine", lambda: machine)
    monkeypatch.setattr(openvino, "_capabilities", lambda core: capabilities)
    assert openvino.has_fast_int8() == is_fast


# Which file?


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shipped_int8_files_are_within_the_limits(name: str, scale: int) -> None:
    file = catalog.resolve(name, scale)
    assert file.int8 is not None
    int8 = file.at("int8")
    assert (int8.path.name, int8.full) == (f"{name}-x{scale}.int8.onnx", replace(file, int8=None))
    assert (int8.name, int8.spec.arithmetic, file.at("fp32")) == (name, "int8", file)
    assert int8.spec.verified["psnr_lost"] <= 0.01
    assert int8.spec.verified["time_share"] < 1
    assert int8.spec.halo <= 32, "tiles of 384 would spend too much on it"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("colors", [(0, 255), (255, 0)], ids=["black on white", "white on black"])
def test_letters_keep_their_edges_in_int8(name: str, scale: int, colors: tuple[int, int]) -> None:
    """Letters lead to several times the largest values of photographs: scales must cover these."""
    ink, paper = (np.full(3, value, np.uint8) for value in colors)
    large = cv2.resize(data.text()[:96, :96], None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    strokes = np.where(large[..., None] < 110, ink, paper)  # a blackboard's
    lr = cv2.resize(strokes, (96, 96), interpolation=cv2.INTER_AREA)
    eight, full, around = (
        np.asarray(Upscaler(name, scale, backend="openvino", precision=precision)(lr)).astype(int)
        for precision in ("int8", "fp32", native())
    )
    rounding = np.sqrt(np.square(around - full).mean())  # of bf16, in which the rest may compute
    assert np.abs(eight - full).max() <= LETTERING[0]
    assert np.sqrt(np.square(eight - full).mean()) <= np.hypot(LETTERING[1], rounding)


@pytest.mark.parametrize("scale", [2, 6])
def test_a_page_of_one_bit_does_without(fast: bool, scale: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its edges are harder than any that steps were measured on."""
    page = np.where(data.text()[:48, :48] < 110, np.uint8(0), np.uint8(255))
    upscaler = Upscaler("mdsr", scale, backend="openvino")
    full = Upscaler("mdsr", scale, backend="openvino", precision=native())
    assert np.array_equal(upscaler(page), full(page))
    assert upscaler.computed is not None
    assert full.computed is not None
    assert upscaler.computed.info == full.computed.info
    told = {message for message in caplog.messages if "too hard for int8" in message}
    assert len(told) == fast
    upscaler(photograph(40))
    assert upscaler.computed is not None
    assert (upscaler.computed.info.precision == "int8") == fast, "that was for the page alone"


def test_alpha_of_two_values_does_without_for_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: True)
    page = np.where(data.text()[:48, :48] < 110, np.uint8(0), np.uint8(255))
    image = np.dstack([photograph(48), page])
    upscaler = Upscaler("mdsr", 2, backend="openvino")
    alpha = np.asarray(upscaler(image))[..., 3]
    assert upscaler.computed is not None
    assert upscaler.computed.info.precision == f"int8, {native()}"
    assert np.array_equal(alpha, Upscaler("mdsr", 2, backend="openvino", precision=native())(page))
    caplog.clear()
    asked = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8")
    asked(image)
    assert asked.computed is not None
    assert (asked.computed.info.precision, caplog.messages) == ("int8", []), "what was asked for runs"


def test_int8_files_are_not_listed_as_models() -> None:
    assert not [spec.name for spec in catalog.list_models(catalog.MODELS_FOLDER) if "int8" in spec.name]


def test_a_path_means_that_file_alone() -> None:
    path = catalog.MODELS_FOLDER / "mdsr-baseline-x2.onnx"
    assert catalog.resolve(path, 2).int8 is None


def test_int8_files_of_other_weights_are_ignored(tmp_path: Path) -> None:
    """As when a network was exported again, but not in int8."""
    for name in ("mdsr-photo-x2.onnx", "mdsr-photo.weights"):
        shutil.copy(catalog.MODELS_FOLDER / name, tmp_path)
    shutil.copy(catalog.MODELS_FOLDER / "mdsr-baseline-x2.int8.onnx", tmp_path / "mdsr-photo-x2.int8.onnx")
    assert catalog.resolve("mdsr-photo", 2, tmp_path).int8 is None
    shutil.copy(catalog.MODELS_FOLDER / "mdsr-photo-x2.int8.onnx", tmp_path)
    assert catalog.resolve("mdsr-photo", 2, tmp_path).int8 is not None


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_damaged_int8_files_are_noted_and_ignored(
    content: bytes, mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (mine / "mine-x2.int8.onnx").write_bytes(content)
    upscaler = Upscaler("mine", 2, backend="openvino")
    assert upscaler.spec.arithmetic == "fp32"
    assert [note for note in caplog.messages if "mine-x2.int8.onnx" in note]


def test_int8_files_that_do_not_load_are_ignored(
    mine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: True)
    load = registry.load

    def failing(name: str, path: Path, spec: ModelSpec, options: Settings) -> Engine:
        if spec.arithmetic == "int8":
            raise ModelFileError(f"{path.name}: no.")
        return load(name, path, spec, options)

    monkeypatch.setattr(registry, "load", failing)
    upscaler = Upscaler("mine", 2, backend="openvino")
    assert (upscaler.spec.arithmetic, caplog.messages) == ("fp32", ["left out: mine-x2.int8.onnx: no."])
    with pytest.raises(ModelFileError):
        Upscaler("mine", 2, backend="openvino", precision="int8")


def test_int8_files_of_another_scale_are_ignored(mine: Path) -> None:
    shutil.copy(catalog.MODELS_FOLDER / "mdsr-baseline-x3.int8.onnx", mine / "mine-x2.int8.onnx")
    assert catalog.resolve("mine", 2).int8 is None


def test_int8_checksums_are_verified(mine: Path) -> None:
    (mine / "mine-x2.int8.onnx.sha256").write_text("0" * 64)
    file = catalog.resolve("mine", 2)
    assert file.int8 is None
    assert "mine-x2.int8.onnx" in file.note


def test_users_int8_files_are_found_but_not_listed(mine: Path) -> None:
    assert catalog.resolve("mine", 2).int8 is not None
    assert [file.name for file in catalog.list_files() if file.yours] == ["mine"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a network and its int8 file."""
    for kind in ("", ".int8"):
        name = f"mdsr-baseline-x2{kind}.onnx"
        shutil.copy(catalog.MODELS_FOLDER / name, tmp_path / name.replace("mdsr-baseline", "mine"))
    shutil.copy(catalog.MODELS_FOLDER / "mdsr-baseline.weights", tmp_path)
    monkeypatch.setenv(catalog.USER_FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


# When?


def test_it_is_the_default_where_int8_is_fast(fast: bool) -> None:
    upscaler = Upscaler("mdsr-baseline", 2, backend="openvino")
    assert (upscaler.info.precision == "int8") == fast
    assert (upscaler.spec.arithmetic == "int8") == fast
    assert upscaler.reason.startswith(f"openvino {upscaler.info.precision} on cpu (as asked for")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_is_asked_for_is_used(backend: str, fast: bool) -> None:
    pytest.importorskip(backend)
    assert Upscaler("mdsr-baseline", 2, backend=backend, precision="int8").info.precision == "int8"
    assert Upscaler("mdsr-baseline", 2, backend=backend, precision="fp32").info.precision == "fp32"


def test_no_other_backend_takes_it_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: True)
    assert not prefers_int8("onnxruntime", Settings())
    assert not prefers_int8("openvino", Settings(precision="bf16"))
    assert prefers_int8("onnxruntime", Settings(precision="int8"))


def test_int8_that_there_is_not_is_refused(tiny_models: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=r"tiny-x2\.onnx does not compute in") as caught:
        Upscaler(tiny_models / "tiny-x2.onnx", 2, precision="int8")
    assert "srcli export --precision int8" in caught.value.hint


def test_a_path_is_told_where_its_int8_file_is() -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        Upscaler(catalog.MODELS_FOLDER / "mdsr-baseline-x2.onnx", 2, precision="int8")
    assert "give mdsr-baseline-x2.int8.onnx" in caught.value.hint


def test_a_backend_without_eight_bits_refuses_them() -> None:
    pytest.importorskip("torch")
    with pytest.raises(BackendUnavailableError, match="torch backend has no precision int8"):
        Upscaler("mdsr-baseline", 2, backend="torch", precision="int8")


def test_a_device_without_eight_bits_refuses_them() -> None:
    file = catalog.resolve("mdsr-baseline", 2).at("int8")
    with pytest.raises(BackendUnavailableError, match="onnxruntime backend has no precision int8"):
        registry.load("onnxruntime", file.path, file.spec, Settings(precision="int8", device="cuda"))


def test_int8_is_looked_for_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU, whose backends have none."""
    monkeypatch.setattr(registry, "reachable", lambda entry: tuple(entry.computes))
    monkeypatch.setattr(registry, "present", lambda entry: tuple(entry.computes))
    assert registry.choose("auto", Settings(precision="int8")).name == "openvino"


@pytest.mark.parametrize("tile", [48, 64])
def test_tiles_too_small_for_its_halo_do_without(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: True)
    assert Upscaler("mdsr-baseline", 4, backend="openvino", tile=tile).info.precision != "int8"
    assert Upscaler("mdsr-baseline", 4, backend="openvino", tile=128).info.precision == "int8"


# Is it the same network?


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", NAMES)
def test_its_pictures_are_those_of_float32(backend: str, name: str) -> None:
    """57 dB or more were measured; rounding both to 8 bits is 56 dB apart by itself, hence 52."""
    pytest.importorskip(backend)
    image = photograph()
    exact = Upscaler(name, 4, backend="onnxruntime", precision="fp32")(image).astype(np.float64)
    eight = Upscaler(name, 4, backend=backend, precision="int8")(image)
    assert 52 < decibels(float(np.mean((eight - exact) ** 2)), peak=255.0) < 80


def test_tiles_leave_no_trace() -> None:
    image = photograph(150)
    whole = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8", tile=512)(image)
    tiled = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8", tile=96)(image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


class Spoilt:
    """An engine that gives no numbers in int8."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.info, self.scale = engine, engine.info, engine.scale

    def run(self, lr: Batch) -> Batch:
        made = self.engine.run(lr)
        return made * np.float32(np.nan) if self.info.precision == "int8" else made


def spoil(load: Callable[..., Engine]) -> Callable[..., Spoilt]:
    def loaded(name: str, path: Path, spec: ModelSpec, options: Settings) -> Spoilt:
        return Spoilt(load(name, path, spec, options))

    return loaded


def test_where_it_fails_float32_is_computed_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = photograph(20)
    exact = Upscaler("mdsr-baseline", 2, backend="openvino", precision="fp32", halo=22)(image)
    monkeypatch.setattr(registry, "load", spoil(registry.load))
    upscaler = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8")
    np.testing.assert_array_equal(upscaler(image), exact)
    assert caplog.messages == ["int8 on cpu gave infinities or NaN: computed again in fp32"]
    assert upscaler.computed is not None
    assert upscaler.computed.info.precision == "fp32"
