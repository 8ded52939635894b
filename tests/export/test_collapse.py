"""Upsampler and tail as one convolution: the same picture to the last bits of float32, borders too."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_exports import checkpoint, expected, export, tiny

from srcli.backends import registry
from srcli.backends.base import BackendOptions
from srcli_export import collapse
from srcli_export.collapse import collapsed
from srcli_export.exporter import Exported
from srcli_export.fuse import fuse
from srcli_export.layers import Conv, FineConv, Rectifier, Shuffle, Skip, Upscale, multiply_adds
from srcli_export.layers import parameter_count as count
from srcli_export.runtime import Runner
from srcli_train.networks import build, preset

SIZES = [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2), (3, 3), (4, 7), (11, 9)]
"""Height and width: a border alone, borders that overlap, and one with an inside."""
FLOAT32 = 5e-6
CASES = [("edsr", 2), ("edsr", 3), ("edsr", 4), ("edsr-baseline", 4), ("mdsr", 2), ("mdsr", 3), ("mdsr", 4)]


def noise(height: int, width: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(height * width).random((1, 3, height, width), np.float32)


def end_of(name: str, scale: int) -> Upscale:
    spec, network = tiny(name, scale)
    end = collapsed(fuse(network, spec, scale))[-1]
    assert isinstance(end, Upscale)
    return end


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_it_is_the_network_that_was_trained(
    name: str, scale: int, backend: str, size: tuple[int, int], made: dict[tuple[str, int], Exported]
) -> None:
    pytest.importorskip(backend)
    file, (_, network) = made[name, scale], tiny(name, scale)
    engine = registry.load(backend, file.path, file.spec, BackendOptions("fp32", "cpu"))
    np.testing.assert_allclose(
        engine.run(noise(*size)), expected(network, noise(*size), scale), atol=FLOAT32, rtol=0
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Exported]:
    found = {}
    for name, scale in CASES:
        folder = tmp_path_factory.mktemp(f"{name}-{scale}")
        path, _ = checkpoint(folder, name, scale)
        found[name, scale] = next(file for file in export(path, folder) if file.spec.scale == scale)
    return found


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_one_convolution_is_right_inside_and_wrong_at_the_border(name: str, scale: int) -> None:
    """Else the layers would run on strips for nothing, or the strips would be too narrow."""
    end, x = end_of(name, scale), torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(1)).double()
    merged, exact = (collapse._run(layers, x) for layers in ((end.merged, Shuffle("", scale)), end.exact))
    wrong = (merged - exact).abs().amax((0, 1)).reshape(9, scale, 9, scale).amax((1, 3)) > 1e-5
    inside = torch.zeros(9, 9, dtype=torch.bool)
    inside[end.edge : -end.edge, end.edge : -end.edge] = True
    assert torch.equal(wrong, ~inside)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_reaches_two_pixels_and_mends_one(scale: int) -> None:
    end = end_of("edsr", scale)
    assert (end.edge, end.context, end.factor) == (1, 3, scale)
    assert end.merged.weight.shape == (3 * scale**2, 8, 5, 5)
    assert end.merged.name == "upsampler.merged"
    assert end_of("mdsr", scale).merged.name == f"upsampler.{scale}.merged"


def test_the_work_of_edsr_baseline_x4_as_counted_by_hand() -> None:
    """A third less than before; parameters are those that were trained."""
    spec = preset("edsr-baseline", 4)
    before = fuse(build(spec), spec, 4)
    after = collapsed(before)
    body = 3 * 64 * 9 + (16 * 2 + 1) * 64 * 64 * 9
    assert multiply_adds(after) == body + 64 * 48 * 25
    assert multiply_adds(before) == body + 64 * 256 * 9 * (1 + 4) + 64 * 3 * 9 * 16
    assert count(after) == count(before) == 1_517_571


def test_an_activation_ends_it() -> None:
    """SRResNet has one after each PixelShuffle, and one convolution after the last."""
    spec, network = tiny("srresnet", 4)
    layers = fuse(network, spec, 4)
    assert collapsed(layers) is layers
    kernel, bias = np.ones((4, 1, 3, 3), np.float32), np.ones(4, np.float32)
    conv, fine = Conv("a.0", kernel, bias), FineConv("tail", kernel[:1], bias[:1])
    kinds = [type(layer) for layer in collapsed((Rectifier("r", None), conv, Shuffle("a.1", 2), fine))]
    assert kinds == [Rectifier, Upscale]
    assert collapsed((Skip("s", (conv,)), conv, fine))[1:] == (conv, fine), "nothing is upsampled"


def test_graphs_run_the_layers_on_four_strips(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "edsr", 4)
    (one,) = export(path, tmp_path / "out")
    nodes = [node.name for node in onnx.load(one.path).graph.node if node.op_type == "Conv"]
    assert len(nodes) == len(set(nodes))
    own = Counter(name.partition(".")[2] for name in nodes if name.startswith("tail"))
    assert own == {"top": 1, "bottom": 1, "left": 1, "right": 1}
    assert nodes.count("upsampler.merged") == 1
    run = Runner(one.path)
    assert run(noise(5, 5)).shape == (1, 3, 20, 20)
