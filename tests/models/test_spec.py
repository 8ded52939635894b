"""ModelSpec: written, read back without an ONNX library, refused when damaged."""

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from srcli.errors import ModelFileError
from srcli.models.spec import METADATA_KEY, ModelSpec, TrainingFacts, check_weights, read_metadata, read_spec

SPEC = ModelSpec(
    name="größe", family="edsr", scale=3, exact_halo=36, halo=14,
    training=TrainingFacts(data="photographs", updates=7), quality={"Set5": 33.9},
)  # fmt: skip


def _file(path: Path, metadata: dict[str, str]) -> Path:
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [values], [values])
    model = helper.make_model(graph, producer_name="test")
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
    return path


def test_json_round_trip() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


def test_keys_of_newer_versions_are_ignored() -> None:
    assert ModelSpec.from_json(SPEC.to_json().replace('"scale": 3', '"scale": 3, "colour": "blue"')) == SPEC


def test_spec_is_read_from_an_onnx_file(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.onnx", {"other": "x" * 300, METADATA_KEY: SPEC.to_json()})
    assert read_spec(path) == SPEC
    assert read_metadata(path)["other"] == "x" * 300


def test_a_file_without_spec_has_none(tmp_path: Path) -> None:
    assert read_spec(_file(tmp_path / "a.onnx", {"author": "somebody"})) is None


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(40), b"hello, I am text"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"x\.onnx: not an ONNX file"):
        read_spec(tmp_path / "x.onnx")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.onnx", {METADATA_KEY: SPEC.to_json()})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelFileError, match="damaged"):
        read_spec(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "a"}', '{"name": "a", "family": "b", "scale": "x"}']
)
def test_a_damaged_spec_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("change", [{"scale": 0}, {"scale": 17}, {"halo": 40}, {"halo": -1}])
def test_impossible_values_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ModelFileError):
        replace(SPEC, **change)


def test_shared_weights_are_checked(tmp_path: Path) -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # SHA-256 of "test"
    metadata = {"srcli.weights_file": "a.weights", "srcli.weights_sha256": digest}
    path = _file(tmp_path / "a.onnx", metadata)
    with pytest.raises(ModelFileError, match=r"a\.weights: cannot be read, but a\.onnx needs it"):
        check_weights(path)
    (tmp_path / "a.weights").write_bytes(b"test")
    check_weights(path)
    (tmp_path / "a.weights").write_bytes(b"tess")
    with pytest.raises(ModelFileError, match="damaged, or not the weights"):
        check_weights(path)
