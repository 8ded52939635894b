"""What a user would pick instead of srcli, on the same weights: each as its own documentation runs it.

Every contender turns pictures into pictures in memory, (H, W, 3) uint8 RGB to (scale*H, scale*W, 3)
uint8 RGB: conversion and rounding are part of the work, files are not. All use all cores. All but srcli run
the network layer by layer as it was trained; srcli's own file has upsampler and tail merged into one.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srcli.backends.devices import cores
from srcli.backends.onnxruntime import import_onnxruntime
from srcli.backends.openvino import import_openvino
from srcli.benchmark.subjects import Case, load
from srcli.imaging.pixels import from_network, to_network
from srcli.models.catalog import ModelFile
from srcli.upscaler import Upscaler
from srcli_export.fuse import fold
from srcli_export.graph import build_model, embedded, stored_weights
from srcli_export.layers import Conv, FineConv
from srcli_train.checkpoint import load_checkpoint
from srcli_train.networks import NetworkSpec, build
from srcli_train.start import load_start

Pixels = NDArray[np.uint8]
Batch = NDArray[np.float32]
Contender = Callable[[Sequence[Pixels]], list[Pixels]]


TOLERANCE = 5e-4
"""Largest difference on 0-1 between this network and the shipped one, on noise. What is merged in the file
was merged before it was rounded to fp16, what is rebuilt here was rounded before; the shipped MDSR-baseline
differs by 2.3e-4 at x4, a twentieth of 1/255."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where contenders run ("cpu" or "cuda"), a folder for what they convert, and srcli's backend."""

    scratch: Path
    device: str = "cpu"
    backend: str = "auto"


_TRACED = 64  # side of the picture that PyTorch's network is traced with for ncnn


def srcli(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """As `srcli upscale` runs it: precision and tiles are its own choice, and so is an "auto" backend."""
    model = file.name if file.int8 else file.path  # by its name, srcli may take that
    upscaler = Upscaler(model, file.spec.scale, backend=place.backend, device=place.device)
    return lambda pictures: [upscaler(picture) for picture in pictures]


def srcli_fp32(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """As `srcli upscale --precision fp32`."""
    scale, exact = file.spec.scale, "fp32"
    upscaler = Upscaler(file.path, scale, backend=place.backend, precision=exact, device=place.device)
    return lambda pictures: [upscaler(picture) for picture in pictures]


def pytorch(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """Eager float32 under no_grad on the whole picture, as the reference implementation does it."""
    moved = deepcopy(network).to(place.device)
    torch.backends.cudnn.allow_tf32 = False  # it is the measure of the others

    def run(batch: Batch) -> Batch:
        with torch.no_grad():
            result = moved(torch.from_numpy(batch).to(place.device), file.spec.scale)
            return np.asarray(result.cpu().numpy(), np.float32)

    return partial(_each, run)


def onnxruntime(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """A session with default options on the whole picture."""
    library = import_onnxruntime()
    if place.device == "cuda":
        library.preload_dlls()
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[place.device]
    session = library.InferenceSession(str(_plain(file, network, place.scratch)), providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime does not start on {place.device}")
    name = session.get_inputs()[0].name
    return partial(_each, lambda batch: session.run(None, {name: batch})[0])


def openvino(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """As benchmark_app: throughput hint, as many asynchronous requests as it advises, automatic precision."""
    return openvino_runs(_plain(file, network, place.scratch))


def openvino_runs(path: Path) -> Contender:
    """Any ONNX file in OpenVINO, as `openvino` has it."""
    core = import_openvino().Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

    advised = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled.create_infer_request() for _ in range(advised)]

    def run(pictures: Sequence[Pixels]) -> list[Pixels]:
        # Results are fetched by this thread: with AsyncInferQueue's callback in Python, OpenVINO's thread may
        # still wait for the interpreter when the network is destroyed, which then waits for that thread.
        results: list[Pixels] = []
        for number in range(len(pictures) + advised):
            if number >= advised and number - advised < len(pictures):
                requests[number % advised].wait()
                results.append(_picture(requests[number % advised].get_output_tensor(0).data))
            if number < len(pictures):
                requests[number % advised].start_async([to_network(pictures[number])])
        return results

    return run


def opencv(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """OpenCV's DNN module."""
    import cv2

    net = cv2.dnn.readNetFromONNX(str(_plain(file, network, place.scratch)))

    def run(batch: Batch) -> Batch:
        net.setInput(batch)
        return np.asarray(net.forward(), np.float32)

    return partial(_each, run)


def ncnn(file: ModelFile, network: nn.Module, place: Place) -> Contender:
    """ncnn from its wheel with default options, converted by pnnx from the same network in PyTorch."""
    return ncnn_runs(OneScale(network, file.spec.scale), place.scratch)


def ncnn_runs(network: nn.Module, scratch: Path) -> Contender:
    """Any network in ncnn, as `ncnn` has it."""
    import ncnn

    param, weights = _converted(network, scratch)
    net = ncnn.Net()
    net.opt.num_threads = cores()
    net.load_param(str(param))
    net.load_model(str(weights))

    def run(batch: Batch) -> Batch:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(batch[0]).clone())
        return np.array(extractor.extract("out0")[1], np.float32)[None]

    return partial(_each, run)


@dataclass(frozen=True, slots=True)
class Entry:
    """What makes a contender, the modules it needs, and the devices it runs on."""

    make: Callable[[ModelFile, nn.Module, Place], Contender]
    modules: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)


_BOTH = ("cpu", "cuda")
CONTENDERS: dict[str, Entry] = {
    "srcli": Entry(srcli, devices=_BOTH),
    "srcli --precision fp32": Entry(srcli_fp32, devices=_BOTH),
    "PyTorch eager": Entry(pytorch, ("torch",), _BOTH),
    "ONNX Runtime": Entry(onnxruntime, ("onnxruntime",), _BOTH),
    "OpenVINO, benchmark_app's settings": Entry(openvino, ("openvino",)),
    "OpenCV DNN": Entry(opencv, ("cv2",)),
    "ncnn": Entry(ncnn, ("ncnn", "pnnx")),
}


def available(device: str = "cpu") -> list[str]:
    """Names of the contenders that run on a device and whose packages are installed."""
    return [
        name
        for name, entry in CONTENDERS.items()
        if device in entry.devices and all(find_spec(module) for module in entry.modules)
    ]


def _each(run: Callable[[Batch], Any], pictures: Sequence[Pixels]) -> list[Pixels]:
    return [_picture(run(to_network(picture))) for picture in pictures]


def _picture(batch: Any) -> Pixels:
    return np.asarray(from_network(np.asarray(batch, np.float32), np.dtype(np.uint8), 3), np.uint8)


def _plain(file: ModelFile, network: nn.Module, scratch: Path) -> Path:
    """The network's ONNX file as it would come out of PyTorch: a node a layer, float32 weights inside."""
    *layers, tail = fold(network, described(file), file.spec.scale)
    assert isinstance(tail, FineConv)
    layers.append(Conv(tail.name, tail.weight, tail.bias))
    path = scratch / f"{file.path.stem}-plain.onnx"
    onnx.save(build_model(layers, embedded(stored_weights(layers, "fp32")), file.spec), path)
    return path


class OneScale(nn.Module):
    """A network at one scale, for tracing."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(lr, self.scale)
        return result


def _converted(network: nn.Module, scratch: Path) -> tuple[Path, Path]:
    """ncnn's two files: graph and weights, the latter in float32."""
    import pnnx

    traced = scratch / "traced.pt"
    example = torch.zeros(1, 3, _TRACED, _TRACED)
    torch.jit.trace(network, example).save(str(traced))  # type: ignore[no-untyped-call]
    tool = shutil.which("pnnx") or str(Path(pnnx.__file__).parent / "bin" / "pnnx")
    shapes = [f"inputshape{n}=[1,3,{side},{side}]" for n, side in (("", _TRACED), ("2", _TRACED + 8))]
    subprocess.run([tool, traced.name, *shapes, "fp16=0"], cwd=scratch, check=True, capture_output=True)
    return scratch / "traced.ncnn.param", scratch / "traced.ncnn.bin"


# The network in plain PyTorch: an `nn.Module` in float32, contiguous NCHW, under `torch.no_grad()`, without
# channels_last, lower precision or compilation. Its weights come from the ONNX file that srcli ships, so
# anybody can repeat the comparison.


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
    engine = load(file, Case("onnxruntime", "cpu", "fp32"))
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
