"""Tiny checkpoints and what to export and compare them with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from srcli.imaging.metrics import decibels
from srcli.models.spec import ModelSpec, TrainingFacts
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.int8 import Timing
from srcli_export.layers import Layer, arrays
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.networks import NetworkSpec, build, preset
from srcli_train.recipes import Recipe

FACTS = TrainingFacts(data="charts", recipe="none", updates=7)

Pixels = NDArray[np.uint8]


def tiny(name: str, scale: int) -> tuple[NetworkSpec, nn.Module]:
    """A preset of two blocks of eight features with weights and batch statistics that are not the default."""
    made = preset("mdsr-80" if name == "mdsr" else name, scale)
    spec = replace(made, name=name, blocks=2, features=8)
    torch.manual_seed(scale)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_mean, module.running_var, module.bias):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            nn.init.uniform_(module.bias, -20, 20)  # on 0-255, so that biases matter
    return spec, network.eval()


def checkpoint(folder: Path, name: str = "edsr", scale: int = 2) -> tuple[Path, nn.Module]:
    spec, network = tiny(name, scale)
    quality = {"2": {"Set5": 37.5}, "3": {"Set5": 33.5}, "4": {"Set5": 31.5}}
    path = folder / "checkpoint.pt"
    save_checkpoint(path, Checkpoint(spec, Recipe(), network.state_dict(), facts=FACTS, quality=quality))
    return path, network


def photograph() -> Pixels:
    from skimage import data

    image: Pixels = data.astronaut()[:300, 100:360]
    return image


def export(path: Path, folder: Path, weights: str = "fp32") -> list[Exported]:
    """On an image too small to measure a halo on, which is quick."""
    return export_checkpoint(path, folder, weights=weights, calibration=small())


def small() -> list[Pixels]:
    return [photograph()[60:140, 60:140]]


def export_all(folder: Path, name: str = "edsr-baseline", weights: str = "fp32") -> list[Exported]:
    """fp32, fp16 and int8, as on a machine on which int8 takes three quarters of the time."""
    path, _ = checkpoint(folder, name, 2)
    return export_checkpoint(
        path,
        folder / "out",
        precisions=("int8", "fp32", "fp16"),
        weights=weights,
        calibration=small(),
        photographs=small(),
        stopwatch=_timings,
    )


def _timings(fp32: Path, int8: Path, spec: ModelSpec) -> list[Timing]:
    assert (fp32.suffix, int8.suffix, spec.arithmetic) == (".onnx", ".onnx", "int8")
    return [
        Timing("openvino bf16", False, 0.4),
        Timing("onnxruntime fp32", False, 0.9),
        Timing("onnxruntime int8", True, 0.3),
    ]


def photo_batch() -> NDArray[np.float32]:
    image = photograph()[60:107, 40:101]
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255


def expected(network: nn.Module, batch: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        out: NDArray[np.float32] = network(torch.from_numpy(batch), scale).numpy()
    return out


def psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """On 0-1, in dB."""
    return decibels(float(np.mean((a.astype(np.float64) - b) ** 2)), peak=1.0)


def stored(path: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """Initialisers of an ONNX file by name."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def kernels(layers: Sequence[Layer]) -> dict[str, NDArray[np.float32]]:
    """Kernels of all convolutions by name."""
    return {name.removesuffix(".weight"): v for name, v in arrays(layers) if name.endswith(".weight")}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
