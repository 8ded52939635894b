from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import tiny_networks
from onnx import TensorProto, helper

from srcli import Upscaler
from srcli.errors import ModelFileError, ModelNotFoundError
from srcli.models import catalog


def test_list_models(tiny_catalog: Path) -> None:
    assert [(spec.name, spec.scale) for spec in catalog.list_models()] == [("tiny", s) for s in (2, 3, 4)]


def test_shipped_models_are_well_described() -> None:
    """Empty until models ship; every one that does carries name, scale and a measured halo."""
    for spec in catalog.list_models():
        file = catalog.resolve(spec.name, spec.scale)
        assert file.path.name == f"{spec.name}-x{spec.scale}.onnx"
        assert 0 < spec.halo <= spec.exact_halo
        assert spec.license


def test_resolve_by_name(tiny_catalog: Path) -> None:
    file = catalog.resolve("tiny", 3)
    assert (file.path, file.spec, file.note) == (
        tiny_catalog / "tiny-x3.onnx",
        tiny_networks.tiny_spec(3),
        "",
    )


def test_a_family_takes_its_best(tmp_path: Path) -> None:
    for name, quality in (("small", 30.0), ("good", 32.0), ("bad", 28.0)):
        spec = replace(tiny_networks.tiny_spec(2, name), quality={"Set5": quality})
        tiny_networks.write(tmp_path, spec)
    tiny_networks.write(tmp_path, replace(tiny_networks.tiny_spec(2, "other"), family="mdsr"))
    file = catalog.resolve("edsr", 2, tmp_path)
    assert file.name == "good"
    assert "good" in file.note
    assert catalog.resolve("mdsr", 2, tmp_path).name == "other"


def test_a_misspelt_name_gets_a_suggestion(tiny_catalog: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="'tiny'"):
        catalog.resolve("tinny", 2)


@pytest.mark.parametrize(("name", "hint"), [("zzzz", "There are"), ("mdsr", "There are|mean")])
def test_an_unknown_name_gets_the_list(tiny_catalog: Path, name: str, hint: str) -> None:
    with pytest.raises(ModelNotFoundError, match=hint):
        catalog.resolve(name, 2)


def test_an_empty_catalogue(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="None are shipped"):
        catalog.resolve("mdsr", 2, tmp_path)


def test_a_scale_the_model_lacks(tiny_catalog: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="x2, x3, x4"):
        catalog.resolve("tiny", 8)


def test_a_path(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x3.onnx"
    assert catalog.scales(path) == (3,)
    assert catalog.resolve(str(path), 3).spec == tiny_networks.tiny_spec(3)


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_a_path_that_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        catalog.resolve(tmp_path / name, 2)


@pytest.mark.parametrize(
    "content", [b"", b"not a network at all", b"\x00" * 100], ids=["empty", "text", "zeros"]
)
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        catalog.resolve(path, 2)


def test_a_truncated_file(tiny_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes()[:3000])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        Upscaler(path, 2)


def foreign(path: Path, nodes: Sequence[onnx.NodeProto], channels: int = 3) -> Path:
    """A network without a spec, from input "in" to output "out"."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "foreign",
        [info("in", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [info("out", TensorProto.FLOAT, None)],
        [helper.make_tensor("twice", TensorProto.FLOAT, [4], [1, 1, 2, 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


RESIZE = helper.make_node("Resize", ["in", "", "twice"], ["out"], mode="nearest")


def test_a_foreign_network_is_probed(tmp_path: Path) -> None:
    file = catalog.resolve(foreign(tmp_path / "theirs.onnx", [RESIZE]), 2)
    assert (file.spec.scale, file.spec.halo, file.spec.family) == (2, catalog.UNKNOWN_HALO, "other")
    assert "carries no description" in file.note


@pytest.mark.parametrize("nodes", [[helper.make_node("GlobalAveragePool", ["in"], ["out"])]])
def test_a_foreign_network_of_another_kind(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    with pytest.raises(ModelFileError, match="turns"):
        catalog.resolve(foreign(tmp_path / "classifier.onnx", nodes), 2)


def test_a_foreign_network_of_other_channels(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"y\.onnx"):
        catalog.resolve(foreign(tmp_path / "y.onnx", [RESIZE], channels=1), 2)
