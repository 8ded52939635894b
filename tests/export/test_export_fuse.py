"""Fused networks give the same picture to the last bits of float32, borders too."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_exports import checkpoint, expected, export, kernels, tiny

from srcli.backends import registry
from srcli.settings import Settings
from srcli_export import fuse as fuse_module
from srcli_export.exporter import Exported
from srcli_export.fuse import fold, fuse, fuse_upsampler
from srcli_export.layers import (
    Conv,
    FineConv,
    Rectifier,
    Shuffle,
    Skip,
    Upscale,
    arrays,
    convolutions,
    multiply_adds,
)
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
    end = fuse(network, spec, scale)[-1]
    assert isinstance(end, Upscale)
    return end


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_backends_give_the_trained_network(
    name: str, scale: int, backend: str, size: tuple[int, int], made: dict[tuple[str, int], Exported]
) -> None:
    pytest.importorskip(backend)
    file, (_, network) = made[name, scale], tiny(name, scale)
    engine = registry.load(backend, file.path, file.spec, Settings(precision="fp32", device="cpu"))
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
def test_the_fused_upsampler_is_wrong_only_at_the_border(name: str, scale: int) -> None:
    """Else the strips were needless, or too narrow."""
    end, x = end_of(name, scale), torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(1)).double()
    fused, exact = (fuse_module._run(layers, x) for layers in ((end.fused, Shuffle("", scale)), end.exact))
    wrong = (fused - exact).abs().amax((0, 1)).reshape(9, scale, 9, scale).amax((1, 3)) > 1e-5
    inside = torch.zeros(9, 9, dtype=torch.bool)
    inside[end.edge : -end.edge, end.edge : -end.edge] = True
    assert torch.equal(wrong, ~inside)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_fused_kernel_is_5x5_and_the_edge_1(scale: int) -> None:
    end = end_of("edsr", scale)
    assert (end.edge, end.context, end.factor) == (1, 3, scale)
    assert end.fused.weight.shape == (3 * scale**2, 8, 5, 5)
    assert end.fused.name == "upsampler.merged"
    assert end_of("mdsr", scale).fused.name == f"upsampler.{scale}.merged"


def test_work_of_edsr_baseline_x4_as_counted_by_hand() -> None:
    """A third less than before; parameters are those that were trained."""
    spec = preset("edsr-baseline", 4)
    before = fold(build(spec), spec, 4)
    after = fuse_upsampler(before)
    body = 3 * 64 * 9 + (16 * 2 + 1) * 64 * 64 * 9
    assert multiply_adds(after) == body + 64 * 48 * 25
    assert multiply_adds(before) == body + 64 * 256 * 9 * (1 + 4) + 64 * 3 * 9 * 16
    assert count(after) == count(before) == 1_517_571


def test_only_layers_after_the_last_activation_are_fused() -> None:
    """SRResNet has one after each PixelShuffle, and one convolution after the last."""
    spec, network = tiny("srresnet", 4)
    layers = fold(network, spec, 4)
    assert fuse_upsampler(layers) is layers
    kernel, bias = np.ones((4, 1, 3, 3), np.float32), np.ones(4, np.float32)
    conv, fine = Conv("a.0", kernel, bias), FineConv("tail", kernel[:1], bias[:1])
    kinds = [type(layer) for layer in fuse_upsampler((Rectifier("r", None), conv, Shuffle("a.1", 2), fine))]
    assert kinds == [Rectifier, Upscale]
    assert fuse_upsampler((Skip("s", (conv,)), conv, fine))[1:] == (conv, fine), "nothing is upsampled"


def test_graphs_run_the_exact_layers_on_four_strips(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "edsr", 4)
    (one,) = export(path, tmp_path / "out")
    nodes = [node.name for node in onnx.load(one.path).graph.node if node.op_type == "Conv"]
    assert len(nodes) == len(set(nodes))
    own = Counter(name.partition(".")[2] for name in nodes if name.startswith("tail"))
    assert own == {"top": 1, "bottom": 1, "left": 1, "right": 1}
    assert nodes.count("upsampler.merged") == 1
    run = Runner(one.path)
    assert run(noise(5, 5)).shape == (1, 3, 20, 20)


def test_residual_scaling_is_folded_into_the_second_convolution(tmp_path: Path) -> None:
    spec, network = tiny("edsr", 2)
    assert spec.residual_scale == 0.1
    folded, weights = dict(arrays(fold(network, spec, 2))), network.state_dict()
    for key, factor in (("conv1.weight", 1.0), ("conv2.weight", 0.1), ("conv2.bias", 0.1 / 255)):
        name = f"body.blocks.1.{key}"
        np.testing.assert_allclose(folded[name], weights[name].numpy() * np.float32(factor), rtol=1e-6)


def test_the_tail_is_split_into_bf16_and_remainder() -> None:
    random = np.random.default_rng(0)
    tail = FineConv("tail", random.normal(0, 0.1, (3, 8, 3, 3)).astype(np.float32), np.ones(3, np.float32))
    (leading, rest), bias = np.split(tail.split[0], 2), tail.split[1]
    np.testing.assert_array_equal(leading + rest, tail.weight)  # exact: the remainder has fewer bits
    assert (leading.view(np.uint32) & 0xFFFF == 0).all()  # bf16 is the upper half of a float32
    assert np.abs(rest).max() <= np.abs(tail.weight).max() * 2**-8
    np.testing.assert_array_equal(bias, [1, 1, 1, 0, 0, 0])
    assert count([tail]) == 3 * 8 * 9 + 3


def test_every_convolution_is_counted_once() -> None:
    """After x2 a convolution runs four times for each LR pixel."""
    spec, network = tiny("mdsr", 4)
    layers = fold(network, spec, 4)
    work = dict(convolutions(layers))
    assert sum(work.values()) == multiply_adds(layers)
    sizes = {name: kernel.size for name, kernel in kernels(layers).items()}
    names = ("head", "body.last", "upsampler.4.0", "upsampler.4.2", "tail")
    assert [work[name] // sizes[name] for name in names] == [1, 1, 1, 4, 8]  # the tail counts once
    assert list(work)[-1] == "tail"
    fused = fuse_upsampler(layers)
    assert list(convolutions(fused))[:-1] == list(work.items())[:-3]
    assert list(convolutions(fused))[-1] == ("upsampler.4.merged", 8 * 48 * 25)
