"""Which convolutions of a network compute in 8-bit integers, and in what steps (Q/DQ).

The first and the last never do: one sees pixels, the other makes them. Each of the others is tried alone, and
those whose noise is small for the work they save are taken, as far as all of it together may go. In the
paper's networks that mostly spares the first and last blocks and the end of the trunk.

What a ReLU gives has no sign, and takes all 256 values. Few pixels come near the largest value of a tensor:
often finer steps, that end before it, are worth what is cut off. Not of photographs alone, though: lettering
drives tensors several times as far, and would lose its edges.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from srcli.errors import ExportError
from srcli.models.spec import ModelSpec
from srcli_export.calibration import lettering
from srcli_export.graph import Steps, Stored, build_model, embedded, kernel_of
from srcli_export.layers import Chain, convolutions, never_negative
from srcli_export.runtime import Batch, Pixels, Runner, to_batch

NOISE = 0.12
"""Levels (of 255, root mean square) that eight bits may add to the output.

Rounding is decided by pixels far away: where it shows, tiles need a halo of nearly the whole receptive field.
MDSR-baseline took a halo of 14 to 22 pixels at 0.1, 20 to 26 at 0.12 and 30 to 44 at 0.2.
"""
_SIGNED, _UNSIGNED = 127, 255
"""The largest of 8 bits; with a sign the same on both sides of zero."""
_REACHES = (1.0, 0.85, 0.7, 0.55, 0.45, 0.35, 0.25, 0.18)
"""What the largest of 8 bits may stand for, as shares of the largest value seen."""
_SIDE = 64
"""LR pixels of each photograph's middle on which noise is measured."""


def quantized(
    path: Path, layers: Chain, stored: Mapping[str, Stored], spec: ModelSpec, images: Sequence[Pixels]
) -> dict[str, Steps]:
    """The steps of the convolutions that are to compute in int8, in running order.

    Args:
        path: the file in float32.
        layers: what it was made from.
        stored: the weights that the int8 file will read.
        spec: of the int8 file.
        images: (H, W, 3) uint8 LR photographs. What each tensor holds on them, on the same with black and
            white in them, and on lettering sets its step; their middles tell the noise.

    Raises:
        ExportError: no convolution bears eight bits.
    """
    work = dict(list(convolutions(layers))[1:-1])
    steps = _steps(path, layers, list(work), stored, images) if work else {}
    noise = _noise(layers, embedded(stored), spec, steps, [to_batch(_middle(image)) for image in images])
    taken = chosen(noise, work, NOISE)
    if not taken:
        hint = "Nothing was written. Leave int8 out of the precisions."
        raise ExportError(f"{spec.name} x{spec.scale}: eight bits cost too much in every convolution.", hint)
    return {name: steps[name] for name in work if name in taken}


def _noise(
    layers: Chain,
    weights: Sequence[onnx.TensorProto],
    spec: ModelSpec,
    steps: Mapping[str, Steps],
    batches: Sequence[Batch],
) -> dict[str, float]:
    """Mean square error on 0-1 that each convolution makes in int8 alone, by name."""

    def run(eight: Mapping[str, Steps]) -> list[Batch]:
        runner = Runner(Path(spec.name), build_model(layers, weights, spec, int8=eight))
        return [runner(batch) for batch in batches]

    exact = run({})
    return {name: _error(run({name: one}), exact) for name, one in steps.items()}


def chosen(noise: Mapping[str, float], work: Mapping[str, int], levels: float) -> set[str]:
    """The convolutions to quantise: those that make the least noise for their work, as far as it may go.

    Args:
        noise: mean square error on 0-1 that each of them alone makes; together they make the sum.
        work: multiply-adds of each.
        levels: root mean square error that is allowed, on 0-255.
    """
    taken, total = set(), 0.0
    for name in sorted(noise, key=lambda name: (noise[name] / work[name], name)):
        if total + noise[name] <= (levels / 255) ** 2:
            taken.add(name)
            total += noise[name]
    return taken


def _steps(
    path: Path, layers: Chain, names: Sequence[str], stored: Mapping[str, Stored], images: Sequence[Pixels]
) -> dict[str, Steps]:
    """Of kernels by their largest weight for each channel, of inputs those that change the images' least."""
    shown = [one for image in images for one in (image, _stretched(image))]
    batches = [to_batch(image) for image in (*shown, *lettering())]
    largest = _measured(path, [(name, _largest) for name in names], batches).max(axis=0)
    unsigned = set(never_negative(layers))
    tried = [
        (name, Steps(_step(reach * value, most), kernel, most == _SIGNED))
        for name, value in zip(names, largest, strict=True)
        for most in [_UNSIGNED if name in unsigned else _SIGNED]
        for kernel in [_step(_kernel_reach(name, stored))]
        for reach in _REACHES
    ]
    costs = _measured(path, [(name, partial(_rounding, steps)) for name, steps in tried], batches).sum(axis=0)
    best = costs.reshape(len(names), len(_REACHES)).argmin(axis=1) + np.arange(len(names)) * len(_REACHES)
    return dict(tried[place] for place in best)


Probe = Callable[[str, str], list[NodeProto]]
"""(tensor, output) -> nodes that make one number of the tensor, called `output`."""


def _measured(
    path: Path, probes: Sequence[tuple[str, Probe]], batches: Sequence[Batch]
) -> NDArray[np.float32]:
    """(batches, probes): what each finds in the input of the convolution it is for."""
    model = onnx.load(path)
    inputs = {node.name: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    outputs = [f"probe{number}" for number in range(len(probes))]
    for output, (name, probe) in zip(outputs, probes, strict=True):
        model.graph.node.extend(probe(inputs[name], output))
        model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    runner = Runner(path, model)
    return np.array([runner.values(outputs, batch) for batch in batches], np.float32)


def _largest(tensor: str, output: str) -> list[NodeProto]:
    """The largest magnitude."""
    magnitude = f"{output}.magnitude"
    return [
        helper.make_node("Abs", [tensor], [magnitude]),
        helper.make_node("ReduceMax", [magnitude], [output], keepdims=0),
    ]


def _rounding(steps: Steps, tensor: str, output: str) -> list[NodeProto]:
    """The sum of squares of what eight bits change."""
    names = step, zero = f"{output}.step", f"{output}.zero"
    eight, rounded, error = f"{output}.eight", f"{output}.rounded", f"{output}.error"
    return [
        helper.make_node("Constant", [], [step], value=numpy_helper.from_array(steps.input)),
        helper.make_node("Constant", [], [zero], value=numpy_helper.from_array(steps.zero)),
        helper.make_node("QuantizeLinear", [tensor, *names], [eight]),
        helper.make_node("DequantizeLinear", [eight, *names], [rounded]),
        helper.make_node("Sub", [tensor, rounded], [error]),
        helper.make_node("ReduceSumSquare", [error], [output], keepdims=0),
    ]


def _kernel_reach(name: str, stored: Mapping[str, Stored]) -> NDArray[np.float32]:
    """(out,) the largest magnitude of the weights for each output channel."""
    return np.asarray(np.abs(kernel_of(name, stored)).max(axis=(1, 2, 3)), np.float32)


def _step(reach: NDArray[np.float32], largest: int = _SIGNED) -> NDArray[np.float32]:
    """What 1 stands for; where nothing was ever seen but zero, anything does."""
    return np.asarray(np.where(reach > 0, reach, 1) / largest, np.float32)


def _middle(image: Pixels) -> Pixels:
    """At most 64 pixels a side."""
    top, left = (max(0, side - _SIDE) // 2 for side in image.shape[:2])
    return image[top : top + _SIDE, left : left + _SIDE]


def _error(a: Sequence[Batch], b: Sequence[Batch]) -> float:
    """Mean square difference, every image counting the same."""
    return float(np.mean([np.mean(np.square(x - y, dtype=np.float64)) for x, y in zip(a, b, strict=True)]))


def _stretched(image: Pixels) -> Pixels:
    """From black to white: what was calibrated on dim photographs alone would clip bright ones."""
    low, high = int(image.min()), int(image.max())
    return np.rint((image - np.float64(low)) * (255 / max(1, high - low))).astype(np.uint8)
