"""The network in plain PyTorch, as the reference implementations run it: what srcli is compared with.

An `nn.Module` in float32, contiguous NCHW, under `torch.no_grad()`: no channels_last, no lower precision,
no compilation. Its weights come from the ONNX file that srcli ships, so anybody can repeat the comparison.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srcli.backends import registry
from srcli.backends.base import BackendOptions
from srcli.models.catalog import ModelFile
from srcli_train.checkpoint import load_checkpoint
from srcli_train.deployed import load_start
from srcli_train.networks import NetworkSpec, build

Batch = NDArray[np.float32]
TOLERANCE = 5e-4
"""Largest difference on 0-1 between this network and the shipped one, on noise. What is merged in the file
was merged before it was rounded to halves, what is rebuilt here was rounded before; the shipped MDSR-baseline
differs by 2.3e-4 at x4, a twentieth of a level."""


def from_checkpoint(path: Path) -> nn.Module:
    """The network of a checkpoint, ready to run."""
    checkpoint = load_checkpoint(path)
    network = build(checkpoint.network)
    network.load_state_dict(checkpoint.weights)
    return network.eval()


def from_onnx(file: ModelFile) -> nn.Module:
    """The network of an exported EDSR or MDSR, rebuilt from its initialisers.

    Residual scaling and the inner pixel range are folded into the exported weights, so both are 1 here.
    """
    network = build(described(file))
    network.load_state_dict(load_start(file.path, described(file)).weights)
    return network.eval()


def described(file: ModelFile) -> NetworkSpec:
    """The network of `from_onnx`."""
    spec = file.spec
    return NetworkSpec(spec.name, spec.family, spec.blocks, spec.features, 1.0, (spec.scale,), 1.0)


def runner(network: nn.Module, scale: int) -> Callable[[Batch], Batch]:
    """(N, 3, H, W) -> (N, 3, scale*H, scale*W), plain PyTorch."""

    def run(batch: Batch) -> Batch:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(batch), scale).numpy(), np.float32)

    return run


def check_parity(network: nn.Module, file: ModelFile) -> float:
    """Largest difference from the shipped file on a random picture.

    Raises:
        ValueError: they are not the same network.
    """
    batch = np.random.default_rng(0).random((1, 3, 40, 56), dtype=np.float32)
    engine = registry.load("onnxruntime", file.path, file.spec, BackendOptions("fp32", "cpu"))
    error = float(np.abs(engine.run(batch) - runner(network, file.spec.scale)(batch)).max())
    if not error <= TOLERANCE:
        raise ValueError(f"{file.path.name}: the rebuilt network differs by {error:.2g}")
    return error


def flops_per_pixel(network: nn.Module, scale: int) -> float:
    """Floating-point operations (2 a multiply-add) of all convolutions, a pixel of the input."""
    total, side = 0, 16

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += 2 * output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    runner(network, scale)(np.zeros((1, 3, side, side), np.float32))
    for hook in hooks:
        hook.remove()
    return total / side**2
