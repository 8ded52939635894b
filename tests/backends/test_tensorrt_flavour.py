"""Choosing a TensorRT: refusals before it is imported, the choice of "auto", the doctor's report."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorrt_doubles import (
    NO_DRIVER,
    RTX,
    TWO,
    load,
)

from srcli.backends import devices, registry
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import flavour
from srcli.backends.tensorrt.flavour import Flavour
from srcli.benchmark import subjects
from srcli.cli.doctor import _trials
from srcli.errors import BackendUnavailableError, MissingExtraError
from srcli.settings import Settings


@pytest.fixture
def untouchable(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> Flavour:
        raise AssertionError("TensorRT was imported")

    monkeypatch.setattr(flavour, "find", touched)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)


@pytest.mark.usefixtures("untouchable")
@pytest.mark.parametrize(
    ("found", "settings", "words"),
    [
        (NO_DRIVER, Settings(), "needs an NVIDIA GPU, but there is no NVIDIA driver"),
        (NO_DRIVER, Settings(device="cuda:1"), "there is no NVIDIA driver"),
        (NO_DRIVER, Settings(device="cpu"), "no device cpu"),
        (Driver("12.8", (RTX,)), Settings(), "runs CUDA 12.8 at most, this TensorRT needs 13"),
        (TWO, Settings(device="cuda:2"), "no device cuda:2"),
        (TWO, Settings(device="cpu"), "no device cpu"),
        (TWO, Settings(device="gpu"), "no device gpu"),
        (TWO, Settings(precision="bf16"), "no precision bf16"),
    ],
)
def test_unavailable_device_or_precision_is_refused(
    found: Driver, settings: Settings, words: str, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "ask", lambda: found)
    with pytest.raises(BackendUnavailableError, match=words):
        load(tiny_models, settings)


def test_missing_package_names_the_extra(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavour, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"srcli\[trt\]"):
        load(tiny_models, Settings())
    with pytest.raises(MissingExtraError, match=r"srcli\[trt\]"):
        flavour.find(flavour.installed())


def test_broken_full_tensorrt_is_skipped_for_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> Any:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.11: cannot open shared object file")
        return SimpleNamespace(__version__="1.7.1", IRuntimeCache=object)

    monkeypatch.setattr(flavour, "installed", lambda: flavour.MODULES)
    monkeypatch.setattr(flavour, "import_module", importing)
    assert (flavour.find(flavour.installed()).name, flavour.find(flavour.installed()).portable) == (
        "tensorrt_rtx",
        True,
    )
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt",))
    with pytest.raises(BackendUnavailableError, match=r"libnvinfer\.so\.11"):
        flavour.find(flavour.installed())
    monkeypatch.setattr(flavour, "import_module", lambda name: SimpleNamespace(__version__="8.6.0"))
    with pytest.raises(BackendUnavailableError, match="too old"):
        flavour.find(flavour.installed())


# The table and the doctor.


def test_auto_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: name)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    monkeypatch.setattr(devices, "ask", lambda: NO_DRIVER)
    assert registry.choose("auto", Settings()).name == "openvino"
    assert "tensorrt" not in registry.available()
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    assert registry.choose("auto", Settings()).name == "tensorrt"
    assert registry.choose("auto", Settings(device="cpu")).name == "openvino"
    assert registry.choose("auto", Settings(precision="bf16")).name == "openvino"
    assert registry.choose("trt", Settings()).name == "tensorrt"


@pytest.mark.parametrize(
    ("name", "cuda", "capability", "known"),
    [
        ("tensorrt_rtx", "13.0", "7.0", False),
        ("tensorrt_rtx", "13.0", "8.9", True),
        ("tensorrt_rtx", "13.0", "9.0", False),  # a data-centre GPU that it does not list
        ("tensorrt_rtx", "13.0", "12.0", True),
        ("tensorrt_rtx", "12.8", "12.0", False),  # the driver
        ("tensorrt", "13.0", "9.0", True),
        ("tensorrt", "13.0", "7.0", False),
    ],
)
def test_auto_needs_a_supported_gpu(
    name: str, cuda: str, capability: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flavour, "installed", lambda: (name,))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    assert flavour.usable(Driver(cuda, (Gpu("G", capability, 1),))) == known


@pytest.mark.parametrize("there", [("tensorrt", "onnx"), ("tensorrt_rtx", "onnx")])
def test_either_flavour_counts_as_installed(there: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    monkeypatch.setattr(registry, "find_spec", lambda name: name if name in there else None)
    assert registry.choose("tensorrt", Settings()).name == "tensorrt"
    monkeypatch.setattr(registry, "find_spec", lambda name: name if name == there[0] else None)
    with pytest.raises(MissingExtraError, match=r"srcli\[trt\]"):
        registry.choose("tensorrt", Settings())


def test_doctor_reports_the_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("tried without a GPU")

    monkeypatch.setattr(subjects, "trial", never)
    monkeypatch.setattr(devices, "ask", lambda: NO_DRIVER)
    trials = _trials("tensorrt", NO_DRIVER)
    assert {t.reason for t in trials} == {"It needs an NVIDIA GPU, but there is no NVIDIA driver."}
    assert [(t.device, t.precision, t.works) for t in trials] == [
        ("cuda", "fp32", False),
        ("cuda", "fp16", False),
    ]
