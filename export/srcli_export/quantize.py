"""Which convolutions of a network compute in 8-bit integers, and in what steps (Q/DQ).

The first and the last never do: one sees pixels, the other makes them. Each of the others is tried alone, and
those whose noise is small for the work they save are taken, as far as all of it together may go. In the
paper's networks that mostly spares the first and last blocks, the end of the trunk and the first convolution
of the upsampler.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from srcli.errors import ExportError
from srcli.spec import ModelSpec
from srcli_export.graph import Steps, Stored, build_model, embedded, kernel_of
from srcli_export.layers import Chain, Skip, convolutions
from srcli_export.runtime import Batch, Pixels, Runner, to_batch

TRUNK_NOISE = 0.1
"""Levels (of 255, root mean square) that eight bits in residual connections may add to the output.

Rounding there is decided by pixels far away: where it shows, tiles need a halo of nearly the whole receptive
field. At a tenth of a level a halo of 16 to 20 pixels was enough, at a quarter it took 40.
"""
END_NOISE = 0.25
"""The same for what comes after the trunk, which sees a few pixels only."""
_LARGEST = 127
"""Of 8 bits with a sign; the same on both sides of zero."""
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
        images: (H, W, 3) uint8 LR photographs. The extremes of each tensor over them, and over the same with
            black and white in them, set its step; their middles tell the noise.

    Raises:
        ExportError: no convolution bears eight bits.
    """
    work = dict(list(convolutions(layers))[1:-1])
    steps = _steps(path, list(work), stored, images) if work else {}
    noise = _noise(layers, embedded(stored), spec, steps, [to_batch(_middle(image)) for image in images])
    trunk = {name for layer in layers if isinstance(layer, Skip) for name, _ in convolutions(layer.layers)}
    taken = chosen({name: noise[name] for name in work if name in trunk}, work, TRUNK_NOISE)
    taken |= chosen({name: noise[name] for name in work if name not in trunk}, work, END_NOISE)
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
    path: Path, names: Sequence[str], stored: Mapping[str, Stored], images: Sequence[Pixels]
) -> dict[str, Steps]:
    """Of inputs by what they hold on the images, of kernels by their largest weight for each channel."""
    model = onnx.load(path)
    largest = list(_with_largest(model.graph, names))
    runner = Runner(path, model)
    found = [runner.values(largest, to_batch(one)) for image in images for one in (image, _stretched(image))]
    inputs = dict(zip(names, np.max(found, axis=0), strict=True))
    return {
        name: Steps(_step(inputs[name]), _step(np.abs(kernel_of(name, stored)).max(axis=(1, 2, 3))))
        for name in names
    }


def _with_largest(graph: onnx.GraphProto, names: Sequence[str]) -> Iterator[str]:
    """Add outputs that give the largest magnitude in each convolution's input."""
    inputs = {node.name: node.input[0] for node in graph.node if node.op_type == "Conv"}
    for name in names:
        output = f"{name}.largest"
        graph.node.append(helper.make_node("Abs", [inputs[name]], [f"{name}.magnitude"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.magnitude"], [output], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
        yield output


def _step(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """What 1 stands for; where nothing was ever seen but zero, anything does."""
    return np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(_LARGEST)


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
