import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import onnx
import pytest
import tiny_networks
from onnx import TensorProto, helper

from srcli import Upscaler
from srcli.errors import ModelFileError, ModelNotFoundError
from srcli.models import catalog
from srcli.models.foreign import UNKNOWN_HALO
from srcli.models.spec import check_weights

LARGEST_SHIPPED = 36_000_000
"""Bytes of all shipped files together: a wheel is downloaded by everyone."""


def test_list_models(tiny_catalog: Path) -> None:
    assert [(spec.name, spec.scale) for spec in catalog.list_models()] == [("tiny", s) for s in (2, 3, 4)]


def test_what_ships_is_whole_well_described_and_small() -> None:
    shipped = catalog.list_models(catalog.MODELS_FOLDER)
    names = ("edsr-baseline", "fast", "fast-photo", "mdsr-baseline", "mdsr-photo")
    expected = product(names, (2, 3, 4))
    assert sorted((spec.name, spec.scale) for spec in shipped) == list(expected)
    for spec in shipped:
        file = catalog.resolve(spec.name, spec.scale, catalog.MODELS_FOLDER)
        check_weights(file.path)
        assert file.path.name == f"{spec.name}-x{spec.scale}.onnx"
        assert file.int8 is None or "/root" not in file.int8.spec.training.command
        assert 0 < spec.halo <= spec.exact_halo
        assert spec.license == "Apache-2.0"
        assert {"Set5", "Set14"} <= set(spec.quality)
        assert "/root" not in spec.training.command, "names a folder of the machine it was trained on"
    assert sum(path.stat().st_size for path in catalog.MODELS_FOLDER.iterdir()) <= LARGEST_SHIPPED


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
    assert (file.spec.scale, file.spec.halo, file.spec.family) == (2, UNKNOWN_HALO, "other")
    assert "carries no description" in file.note


@pytest.mark.parametrize("nodes", [[helper.make_node("GlobalAveragePool", ["in"], ["out"])]])
def test_a_foreign_network_of_another_kind(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    with pytest.raises(ModelFileError, match="turns"):
        catalog.resolve(foreign(tmp_path / "classifier.onnx", nodes), 2)


@pytest.mark.parametrize("name", ["last.pt", "runs/edsr/last.pt", "RRDB.pth", "x4.safetensors"])
def test_weights_are_no_model_and_the_way_to_one_is_said(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        catalog.resolve(name, 2)
    assert f"srcli export {name}" in caught.value.hint
    assert f"srcli models import {name}" in caught.value.hint


def test_a_foreign_network_of_other_channels(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"y\.onnx"):
        catalog.resolve(foreign(tmp_path / "y.onnx", [RESIZE], channels=1), 2)


def yours(folder: Path, name: str = "mine", scale: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return tiny_networks.write(folder, tiny_networks.tiny_spec(scale, name))


def test_the_users_models_are_listed_and_found(tiny_catalog: Path, user_models: Path) -> None:
    path = yours(user_models)
    assert [file.name for file in catalog.list_files()] == ["mine", "tiny", "tiny", "tiny"]
    assert [file.yours for file in catalog.list_files()] == [True, False, False, False]
    file = catalog.resolve("mine", 2)
    assert (file.path, file.yours, file.note) == (path, True, "")
    assert catalog.scales("mine") == (2,)
    assert catalog.list_models(tiny_catalog) == [tiny_networks.tiny_spec(s) for s in (2, 3, 4)]


def test_a_file_of_the_users_is_called_as_it_is_named(tiny_catalog: Path, user_models: Path) -> None:
    yours(user_models, "mine").rename(user_models / "renamed-x2.onnx")
    yours(user_models, "other").rename(user_models / "plain.onnx")
    assert catalog.resolve("renamed", 2).name == "renamed"
    assert catalog.resolve("plain", 2).name == "plain"


def test_a_shipped_name_wins(tiny_catalog: Path, user_models: Path) -> None:
    yours(user_models, "tiny")
    yours(user_models, "tiny", 4)
    assert catalog.resolve("tiny", 2).path.parent == tiny_catalog
    assert catalog.scales("tiny") == (2, 3, 4)
    assert ["shipped" in str(problem) for problem in catalog.problems()] == [True, True]
    assert catalog.is_reserved("tiny")
    assert not catalog.is_reserved("mine")


def test_a_family_is_the_best_shipped_network_unless_yours_has_its_name(
    tiny_catalog: Path, user_models: Path
) -> None:
    """Networks of the user never stand for a family, but a larger one named `edsr` does at its scale."""
    yours(user_models, "mine")
    assert catalog.resolve("edsr", 2).name == "tiny"
    path = yours(user_models, "edsr")
    assert catalog.resolve("edsr", 2).path == path
    assert catalog.resolve("edsr", 4).name == "tiny"
    assert catalog.scales("edsr") == (2, 3, 4)


def test_one_damaged_file_of_the_users_stops_nothing_else(tiny_catalog: Path, user_models: Path) -> None:
    yours(user_models)
    (user_models / "broken-x2.onnx").write_bytes(b"no network")
    assert catalog.resolve("mine", 2).name == "mine"
    assert catalog.resolve("tiny", 2).name == "tiny"
    assert ["broken" in str(problem) for problem in catalog.problems()] == [True]
    with pytest.raises(ModelFileError, match="broken"):
        catalog.resolve("broken", 2)


def test_a_file_without_description_in_the_users_folder(tiny_catalog: Path, user_models: Path) -> None:
    user_models.mkdir()
    foreign(user_models / "theirs-x2.onnx", [RESIZE])
    foreign(user_models / "nameless.onnx", [RESIZE])
    file = catalog.resolve("theirs", 2)
    assert (file.name, file.spec.scale, file.yours) == ("theirs", 2, True)
    assert "carries no description" in file.note
    with pytest.raises(ModelFileError, match=r"nameless-xN\.onnx"):
        catalog.resolve("nameless", 2)


@pytest.mark.parametrize("text", ["{}", "{}  big-x2.onnx\n"])
def test_a_checksum_beside_a_file_is_verified(text: str, tiny_catalog: Path, user_models: Path) -> None:
    path = yours(user_models, "big")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    checksum = user_models / "big-x2.onnx.sha256"
    checksum.write_text(text.format(digest.upper()))
    assert catalog.resolve("big", 2).path == path
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # a weight
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))  # some file systems tick too slowly to show that it has changed
    with pytest.raises(ModelFileError, match=r"is not what big-x2\.onnx\.sha256 says"):
        catalog.resolve("big", 2)
    checksum.write_text("")
    with pytest.raises(ModelFileError, match="sha256"):
        catalog.resolve("big", 2)


def test_a_folder_of_the_user_that_cannot_be_listed_stops_no_shipped_model(
    tiny_catalog: Path, user_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yours(user_models, "big")

    def refuse(folder: Path) -> object:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert catalog.resolve("tiny", 2).name == "tiny"
    assert "cannot be listed (Permission denied)" in str(catalog.problems()[0])
    with pytest.raises(ModelFileError, match="cannot be listed"):
        catalog.resolve("big", 2)
