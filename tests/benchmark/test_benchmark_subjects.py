"""What is measured, what is left out, and what is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_fakes import fake_trials, model_file

from srcli.backends import devices
from srcli.backends.devices import Driver, Gpu
from srcli.benchmark.subjects import Case, Request, resolve, windows
from srcli.errors import BackendUnavailableError, ModelNotFoundError, UsageError
from srcli.models import catalog


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "ask", lambda: Driver(problem="there is no NVIDIA driver"))


def test_all_takes_what_works_and_logs_the_rest(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fake_trials(monkeypatch, ("openvino", "fp32"), ("torch", "fp32"), ("torch", "bf16"), ("bicubic", "fp32"))
    network, bicubic = resolve(Request((model_file(tiny_models, 2),), scales=(2,)))
    assert network.name == "tiny x2"
    assert network.cases == tuple(
        Case(*c) for c in (("openvino", "cpu", "fp32"), ("torch", "cpu", "fp32"), ("torch", "cpu", "bf16"))
    )
    assert (bicubic.name, bicubic.cases) == ("bicubic x2", (Case("bicubic", "cpu", "fp32"),))
    assert "left out: onnxruntime fp32 on cpu: No fp32 there. Buy one." in caplog.messages
    assert len(caplog.messages) == 4  # openvino bf16 and int8, onnxruntime fp32 and int8


def test_a_gpu_is_tried_where_there_is_one(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(devices, "ask", lambda: Driver("13.0", (Gpu("G", "9.0", 1),)))
    fake_trials(monkeypatch, ("torch", "fp32"))
    resolve(Request((model_file(tiny_models, 2),), scales=(2,), backends=("torch",)))
    assert any("torch fp16 on cuda" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("backends", "precisions", "device"),
    [
        (("torch",), ("bf16",), "auto"),  # the pair
        (("torch", "onnxruntime"), (), "auto"),  # one of two backends
        ((), ("fp32", "fp16"), "auto"),  # one of two precisions
        ((), (), "cuda"),  # the device
        (("openvino", "torch"), ("fp32", "bf16"), "auto"),  # one pair of four
    ],
)
def test_what_is_asked_for_by_name_is_run_or_refused(
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    device: str,
    tiny_models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_trials(
        monkeypatch, ("openvino", "fp32"), ("openvino", "bf16"), ("torch", "fp32"), ("bicubic", "fp32")
    )
    request = Request((model_file(tiny_models, 2),), (2,), backends, precisions, device)
    with pytest.raises(BackendUnavailableError, match="there") as caught:
        resolve(request)
    assert caught.value.exit_code == 2
    assert caught.value.hint == "Buy one."


def test_a_named_backend_may_lack_precisions(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trials(monkeypatch, ("torch", "fp32"))
    subjects = resolve(Request((model_file(tiny_models, 2),), (2,), ("torch",)))
    assert [subject.cases for subject in subjects] == [(Case("torch", "cpu", "fp32"),)]


def test_bicubic_alone_is_refused_unless_asked_for(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_trials(monkeypatch, ("bicubic", "fp32"))
    models = (model_file(tiny_models, 2),)
    with pytest.raises(BackendUnavailableError, match="openvino"):
        resolve(Request(models, (2,)))
    subjects = resolve(Request(models, (2,), ("bicubic",)))
    assert [subject.name for subject in subjects] == ["bicubic x2"]


@pytest.mark.parametrize(
    ("size", "tile", "halo", "found"),
    [
        (64, 64, 30, (1, 64)),  # one tile, whatever the halo
        (720, 384, 16, (4, 376)),  # two to a side: (720 + 2 * 16) / 2
        (3464, 384, 16, (100, 376)),  # ten to a side: (3464 + 9 * 32) / 10, rounded up
        (700, 384, 172, (4, 522)),  # at least four halos, 688, where the tile is less
    ],
)
def test_windows_are_planned_as_by_the_upscaler(
    size: int, tile: int, halo: int, found: tuple[int, int]
) -> None:
    assert windows(size, tile, halo) == found


def test_inputs_share_tiles() -> None:
    request = Request(("tiny",), sizes=(128, 384, 1440, 3464), tile=384)
    assert request.tiles == (128, 384)


@pytest.mark.parametrize(
    "request_",
    [Request(("bicubic",), backends=("openvin",)), Request(("bicubic",), precisions=("auto",))],
)
def test_unknown_names_are_wrong_usage(request_: Request) -> None:
    with pytest.raises(UsageError, match=r"No (backend|precision)"):
        resolve(request_)


def test_a_scale_without_network_is_wrong_usage(tiny_models: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="x3"):
        resolve(Request((model_file(tiny_models, 2),), scales=(2, 3)))


def resolved(tiny: Path, **asked: tuple[str, ...]) -> dict[str, set[str]]:
    """Precisions by network, of a shipped one and one without int8 on OpenVINO."""
    models = ("mdsr-baseline", model_file(tiny, 2))
    request = replace(Request(models, (2,), ("openvino",)), **asked)  # type: ignore[arg-type]
    return {subject.file.name: {case.precision for case in subject.cases} for subject in resolve(request)}


def test_int8_is_measured_where_there_is_such_a_file(
    tiny_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = resolved(tiny_models)
    assert {"fp32", "int8"} <= found["mdsr-baseline"]
    assert found["tiny"] == found["mdsr-baseline"] - {"int8"}
    assert [line for line in caplog.messages if "openvino int8 cpu for tiny-x2.onnx" in line]


def test_networks_without_int8_are_left_out_and_logged(
    tiny_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert resolved(tiny_models, precisions=("int8",)) == {"mdsr-baseline": {"int8"}}
    assert [line for line in caplog.messages if "for tiny-x2.onnx" in line]
    path = str(catalog.MODELS_FOLDER / "mdsr-baseline-x2.int8.onnx")
    assert resolved(tiny_models, models=(path,)) == {"mdsr-baseline": {"int8"}}


def test_nothing_asked_for_by_name_is_dropped(tiny_models: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="None of the networks runs with int8"):
        resolved(tiny_models, models=(model_file(tiny_models, 2),), precisions=("int8",))
    pytest.importorskip("torch")
    path = str(catalog.MODELS_FOLDER / "mdsr-baseline-x2.int8.onnx")
    with pytest.raises(BackendUnavailableError, match="None of the networks runs with torch"):
        resolved(tiny_models, models=(path,), backends=("openvino", "torch"))
