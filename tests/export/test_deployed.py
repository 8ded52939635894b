"""Training that starts from an exported model instead of the checkpoint it was made from."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_exports import FACTS, checkpoint, export, tiny

from srcli.errors import ModelNotFoundError, TrainingError, UsageError
from srcli.models.spec import METADATA_KEY
from srcli_train.networks import build, preset
from srcli_train.start import load_start, start_from


@pytest.mark.parametrize(("name", "scale"), [("edsr", 2), ("edsr", 4), ("mdsr", 3)])
def test_weights_come_back_as_they_were_trained(tmp_path: Path, name: str, scale: int) -> None:
    """To float32's rounding of what the export multiplies and divides: residual scaling 0.1, 0-255."""
    path, network = checkpoint(tmp_path, name, scale)
    file = next(file for file in export(path, tmp_path) if file.spec.scale == scale)
    start = load_start(file.path, tiny(name, scale)[0])
    assert start.facts == FACTS
    trained = network.state_dict()
    branches = [f"{part}.{s}." for part in ("pre_process", "upsampler") for s in {2, 3, 4} - {scale}]
    others = [key for key in trained if name == "mdsr" and key.startswith(tuple(branches))]
    assert set(start.weights) == set(trained) - set(others)  # a file holds one scale
    for key, weight in start.weights.items():
        torch.testing.assert_close(weight, trained[key], rtol=1e-6, atol=1e-6)


def test_a_name_stands_for_all_scales_of_an_mdsr(tmp_path: Path, user_models: Path) -> None:
    path, network = checkpoint(tmp_path, "mdsr")
    for file in export(path, user_models):
        file.path.rename(user_models / file.path.name.replace("mdsr", "mine"))
    spec, other = tiny("mdsr", 2)[0], build(tiny("mdsr", 2)[0])
    assert start_from(other, load_start(Path("mine"), spec)) == []
    for key, weight in other.state_dict().items():
        torch.testing.assert_close(weight, network.state_dict()[key], rtol=1e-6, atol=1e-6)


def test_a_single_scale_name_gives_the_scale_that_is_trained() -> None:
    """x3 of the shipped network for x3, and x2, the lowest, for an MDSR, which has several."""
    assert load_start(Path("edsr-baseline"), preset("edsr-baseline", 3)).network.scales == (3,)
    assert load_start(Path("edsr-baseline"), preset("mdsr-baseline")).network.scales == (2,)


def test_what_is_no_start_is_said(tmp_path: Path) -> None:
    spec = preset("mdsr-baseline")
    with pytest.raises(UsageError, match=r"nosuch\.pt: no such checkpoint"):
        load_start(Path("nosuch.pt"), spec)
    with pytest.raises(ModelNotFoundError, match=r"No model 'nosuch'\. Give a checkpoint"):
        load_start(Path("nosuch"), spec)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        load_start(tmp_path / "nosuch.onnx", spec)
    path, _ = checkpoint(tmp_path, "srresnet")
    files = export(path, tmp_path)
    with pytest.raises(TrainingError, match="EDSR and MDSR files in fp32 arithmetic only"):
        load_start(files[0].path, spec)


def test_files_of_different_networks_make_no_start(tmp_path: Path, user_models: Path) -> None:
    """As when x2 was exported before more training, and x3 after it."""
    user_models.mkdir()
    for scale in (2, 3):
        path, _ = checkpoint(tmp_path, "mdsr", scale)
        file = next(f for f in export(path, tmp_path / str(scale)) if f.spec.scale == scale)
        model = onnx.load(file.path)  # with its weights inside
        about = [prop for prop in model.metadata_props if prop.key == METADATA_KEY]
        del model.metadata_props[:]
        model.metadata_props.extend(about)
        onnx.save(model, user_models / f"mine-x{scale}.onnx")
    with pytest.raises(TrainingError, match=r"mine-x2\.onnx, mine-x3\.onnx are not of one network"):
        load_start(Path("mine"), preset("mdsr-baseline"))


def test_a_network_with_another_mean_colour_is_no_start(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    file = export(path, tmp_path)[0].path
    model = onnx.load(file)
    mean = next(tensor for tensor in model.graph.initializer if tensor.name == "mean")
    mean.CopyFrom(numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "mean"))
    onnx.save(model, file)
    with pytest.raises(TrainingError, match="another mean colour"):
        load_start(file, tiny("edsr", 2)[0])
