"""TensorRT for RTX parses and builds every shipped network; needs no GPU."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import tiny_networks
from onnx import helper

from srcli.backends import devices, tensorrt
from srcli.backends.devices import Driver, Gpu
from srcli.backends.rewrite import to_fp16
from srcli.backends.tensorrt import flavour, store
from srcli.backends.tensorrt.build import BuildProgress, build, graph
from srcli.backends.tensorrt.flavour import ErrorLog, failure
from srcli.errors import InferenceError, ModelFileError
from srcli.models import catalog
from srcli.models.spec import read_spec
from srcli.settings import Settings

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX")

SHIPPED = sorted(catalog.MODELS_FOLDER.glob("*-x?.onnx"))
INT8 = sorted(catalog.MODELS_FOLDER.glob("*.int8.onnx"))


@pytest.fixture(scope="module")
def rtx() -> flavour.Flavour:
    import tensorrt_rtx

    return flavour.Flavour("tensorrt_rtx", tensorrt_rtx.__version__, tensorrt_rtx)


@pytest.fixture(autouse=True)
def only_rtx_and_no_gpu(monkeypatch: pytest.MonkeyPatch, rtx: flavour.Flavour) -> None:
    monkeypatch.setattr(devices, "ask", lambda: Driver(problem="there is no NVIDIA driver"))
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "find", lambda names: rtx)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_network_builds(path: Path, tmp_path: Path) -> None:
    spec = read_spec(path)
    assert spec is not None
    sizes = {}
    for precision, width in (("fp32", 4), ("fp16", 2)):
        file = tensorrt.build_ahead(path, spec, Settings(precision=precision), tmp_path)
        kept = store.read(file, _key(path, precision).text)
        assert kept is not None
        sizes[precision] = len(kept)
        assert len(kept) > width * spec.parameters
    assert sizes["fp16"] < 0.7 * sizes["fp32"], "weights in that precision"


@pytest.mark.parametrize("path", INT8, ids=lambda path: path.stem)
def test_shipped_int8_file_builds(path: Path, rtx: flavour.Flavour) -> None:
    """Its fp16 weights must become fp32: TensorRT takes no others in a quantised fp32 network."""
    made = onnx.load_from_string(graph(path, "fp32"))
    assert not any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in made.graph.initializer)
    assert any(node.op_type == "QuantizeLinear" for node in made.graph.node)
    assert build(rtx, path, "fp32", 96, None, b"", BuildProgress("engine")).engine


def _key(path: Path, precision: str) -> store.Key:
    found = flavour.find(flavour.installed())
    return store.key_of(path, precision, tensorrt.DEFAULT_SIDE, found.name, found.version, None)


def test_progress_reaches_the_end(tiny_models: Path, rtx: flavour.Flavour) -> None:
    progress = BuildProgress("engine")
    build(rtx, tiny_models / "tiny-x2.onnx", "fp32", 96, None, b"", progress)
    assert progress.fraction == 1


def test_build_can_be_cancelled(tiny_models: Path, rtx: flavour.Flavour) -> None:
    progress = BuildProgress("engine")
    progress.cancelled = True
    with pytest.raises(KeyboardInterrupt):
        build(rtx, tiny_models / "tiny-x2.onnx", "fp32", 96, None, b"", progress)


@pytest.mark.parametrize("capability", ["7.5", "8.9", "9.0", "12.0"])
def test_builds_for_an_absent_gpu(capability: str, tiny_models: Path, rtx: flavour.Flavour) -> None:
    gpu = Gpu("G", capability, 8 << 30)
    listed = flavour.capability_name(rtx.api, gpu)
    assert listed == (None if capability == "9.0" else "SM" + capability.replace(".", ""))
    assert build(rtx, tiny_models / "tiny-x2.onnx", "fp16", 96, gpu, b"", BuildProgress("engine")).engine


def test_too_little_memory_to_build_is_a_memory_error(tiny_models: Path, rtx: flavour.Flavour) -> None:
    with pytest.raises(MemoryError):
        build(
            rtx,
            tiny_models / "tiny-x4.onnx",
            "fp32",
            1536,
            Gpu("G", "8.9", 1 << 20),
            b"",
            BuildProgress("engine"),
        )


def test_weights_beside_the_model_are_read(tmp_path: Path, rtx: flavour.Flavour) -> None:
    path = tmp_path / "tiny-x2.onnx"
    model = tiny_networks.build(tiny_networks.tiny_spec(2))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=64)
    assert build(rtx, path, "fp32", 96, None, b"", BuildProgress("engine")).engine


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fp16_file_builds_in_both_precisions(precision: str, tmp_path: Path, rtx: flavour.Flavour) -> None:
    spec = replace(tiny_networks.tiny_spec(2, features=64), arithmetic="fp16")
    path = tmp_path / "tiny-x2.onnx"
    onnx.save(to_fp16(tiny_networks.build(spec), "float16"), path)
    made = onnx.load_from_string(graph(path, precision))
    fp16 = sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in made.graph.initializer)
    assert (fp16 == 0) == (precision == "fp32")
    assert build(rtx, path, precision, 96, None, b"", BuildProgress("engine")).engine


def test_network_that_cannot_be_parsed_is_named(tmp_path: Path, rtx: flavour.Flavour) -> None:
    model = tiny_networks.build(tiny_networks.tiny_spec(2))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Det", ["before"], ["sr"]))
    path = tmp_path / "det.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r"det\.onnx.*tensorrt"):
        build(rtx, path, "fp32", 96, None, b"", BuildProgress("engine"))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"neither ONNX nor anything")
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        tensorrt.build_ahead(path, tiny_networks.tiny_spec(2), Settings(), tmp_path)


def test_error_text_of_tensorrt_is_translated(rtx: flavour.Flavour) -> None:
    assert isinstance(failure("Error Code 2: OutOfMemory (Requested size was 9 bytes.)"), MemoryError)
    assert isinstance(failure("Error Code 3: API Usage Error"), InferenceError)
    log = ErrorLog.of(rtx.api)
    assert log is ErrorLog.of(rtx.api), "TensorRT uses the first only"
    log.clear()
    log.logger.log(rtx.api.ILogger.ERROR, "one")
    log.logger.log(rtx.api.ILogger.WARNING, "two")
    assert (log.take(), log.take()) == ("one", "no reason given")
