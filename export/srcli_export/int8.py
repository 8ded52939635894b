"""ONNX files that compute in int8 (Q/DQ): which convolutions, with which scales, and whether it is a gain.

The first and the last convolution stay as they are: they read and make pixels. Each of the others is tried
alone. Those with the least noise for the multiply-adds they save are taken, up to a limit for the noise of
all together. In the paper's networks that leaves out the first and last blocks and the end of the body.

The output of a ReLU is quantized without a sign, to all 256 values. Few values of a tensor come near its
largest: a smaller scale, which clips these, often gives a smaller error in all. Scales are not measured on
photographs alone: letters lead to several times the largest values, and would lose their edges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from srcli.backends import registry
from srcli.benchmark.rounds import Run, Spread, interleave, timed
from srcli.errors import BackendUnavailableError, ExportError
from srcli.models.spec import ModelSpec
from srcli.settings import Settings
from srcli_export.calibration import letters
from srcli_export.files import write_onnx
from srcli_export.graph import QuantScales, Stored, build_model, embedded, kernel_of, stored_weights
from srcli_export.layers import Chain, after_relu, convolutions
from srcli_export.runtime import Batch, Pixels, Runner, to_batch

NOISE = 0.12
"""Root mean square error on 0-255 that int8 may add to the output.

Rounding depends on pixels far away: where it shows, tiles need a halo of nearly the whole receptive field.
MDSR-baseline took a halo of 14 to 22 pixels at 0.1, 20 to 26 at 0.12 and 30 to 44 at 0.2.
"""
MAX_LOSS = 0.1
"""Decibels that int8 may lose."""

_SIGNED, _UNSIGNED = 127, 255
"""Largest 8-bit integer; the signed range is symmetric."""
_RANGES = (1.0, 0.85, 0.7, 0.55, 0.45, 0.35, 0.25, 0.18)
"""Quantization ranges to try, as shares of the largest magnitude seen."""
_NOISE_SIDE = 64
"""LR pixels a side of the centre of each photograph, on which noise is measured."""

_OTHERS = (("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"))
_INT8 = (("openvino", "auto"), ("onnxruntime", "auto"))
"""(backend, precision) to time the fp32 file and the int8 file with; "auto" is for what is not int8."""
_TIMED_SIDE = 192
_REPETITIONS = 7


def write_int8(
    layers: Mapping[int, Chain],
    specs: Mapping[int, ModelSpec],
    fp32: Mapping[int, Path],
    folder: Path,
    weights: str,
    images: Mapping[int, Sequence[Pixels]],
    location: str,
) -> dict[int, Path]:
    """Write the int8 files of a network, by scale. They read the same weights as the fp32 files.

    Args:
        layers: the fused network by scale.
        specs: of the int8 files.
        fp32: the fp32 files by scale.
        folder: a staging folder.
        weights: how the fp32 files store weights: "fp32" or "fp16".
        images: (H, W, 3) uint8 LR photographs to calibrate on, by scale.
        location: the weights file of the fp32 files.

    Raises:
        ExportError: int8 makes too much noise in every convolution of a network.
        OutputError: a file cannot be written.
    """
    scales = {
        s: quantize(fp32[s], layers[s], stored_weights(layers[s], weights), specs[s], images[s])
        for s in specs
    }
    return write_onnx(layers, specs, folder, weights, int8=scales, location=location)


def quantize(
    path: Path, layers: Chain, stored: Mapping[str, Stored], spec: ModelSpec, images: Sequence[Pixels]
) -> dict[str, QuantScales]:
    """Quantization scales of the convolutions that are to compute in int8, in running order.

    Args:
        path: the fp32 file.
        layers: the fused network it was made from.
        stored: the weights that the int8 file will read.
        spec: of the int8 file.
        images: (H, W, 3) uint8 LR photographs. Scales are measured on them, on the same stretched from black
            to white, and on letters; noise is measured on their centres.

    Raises:
        ExportError: int8 makes too much noise in every convolution.
    """
    work = dict(list(convolutions(layers))[1:-1])
    scales = _measure_scales(path, layers, list(work), stored, images) if work else {}
    centres = [to_batch(_centre(image)) for image in images]
    chosen = choose(_measure_noise(layers, embedded(stored), spec, scales, centres), work, NOISE)
    if not chosen:
        hint = "Nothing was written. Leave int8 out of the precisions."
        raise ExportError(f"{spec.name} x{spec.scale}: int8 costs too much in every convolution.", hint)
    return {name: scales[name] for name in work if name in chosen}


def choose(noise: Mapping[str, float], work: Mapping[str, int], limit: float) -> set[str]:
    """The convolutions to quantize: those with the least noise for their work, up to a limit.

    Args:
        noise: mean square error on 0-1 that each makes alone; that of several is taken to be the sum.
        work: multiply-adds of each.
        limit: root mean square error allowed for all together, on 0-255.
    """
    chosen, total = set(), 0.0
    for name in sorted(noise, key=lambda name: (noise[name] / work[name], name)):
        if total + noise[name] <= (limit / 255) ** 2:
            chosen.add(name)
            total += noise[name]
    return chosen


def _measure_noise(
    layers: Chain,
    weights: Sequence[onnx.TensorProto],
    spec: ModelSpec,
    scales: Mapping[str, QuantScales],
    batches: Sequence[Batch],
) -> dict[str, float]:
    """Mean square error on 0-1 that each convolution makes in int8 alone, by name."""

    def run(int8: Mapping[str, QuantScales]) -> list[Batch]:
        runner = Runner(Path(spec.name), build_model(layers, weights, spec, int8=int8))
        return [runner(batch) for batch in batches]

    exact = run({})
    return {name: _error(run({name: one}), exact) for name, one in scales.items()}


def _measure_scales(
    path: Path, layers: Chain, names: Sequence[str], stored: Mapping[str, Stored], images: Sequence[Pixels]
) -> dict[str, QuantScales]:
    """Of kernels the largest weight per output channel; of inputs the range with the least square error."""
    shown = [one for image in images for one in (image, _stretched(image))]
    batches = [to_batch(image) for image in (*shown, *letters())]
    largest = _measured(path, [(name, _largest) for name in names], batches).max(axis=0)
    unsigned = set(after_relu(layers))
    tried = [
        (name, QuantScales(_scale(share * value, most), kernel, most == _SIGNED))
        for name, value in zip(names, largest, strict=True)
        for most in [_UNSIGNED if name in unsigned else _SIGNED]
        for kernel in [_scale(_largest_weights(name, stored))]
        for share in _RANGES
    ]
    costs = _measured(path, [(name, partial(_rounding, one)) for name, one in tried], batches).sum(axis=0)
    best = costs.reshape(len(names), len(_RANGES)).argmin(axis=1) + np.arange(len(names)) * len(_RANGES)
    return dict(tried[place] for place in best)


Probe = Callable[[str, str], list[NodeProto]]
"""(tensor, output) -> nodes that compute one number from the tensor, called `output`."""


def _measured(
    path: Path, probes: Sequence[tuple[str, Probe]], batches: Sequence[Batch]
) -> NDArray[np.float32]:
    """(batches, probes): the number of each probe, on the input of the convolution it is named with."""
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


def _rounding(scales: QuantScales, tensor: str, output: str) -> list[NodeProto]:
    """The sum of squared quantization errors."""
    names = scale, zero = f"{output}.scale", f"{output}.zero"
    integers, rounded, error = f"{output}.integers", f"{output}.rounded", f"{output}.error"
    return [
        helper.make_node("Constant", [], [scale], value=numpy_helper.from_array(scales.input)),
        helper.make_node("Constant", [], [zero], value=numpy_helper.from_array(scales.zero)),
        helper.make_node("QuantizeLinear", [tensor, *names], [integers]),
        helper.make_node("DequantizeLinear", [integers, *names], [rounded]),
        helper.make_node("Sub", [tensor, rounded], [error]),
        helper.make_node("ReduceSumSquare", [error], [output], keepdims=0),
    ]


def _largest_weights(name: str, stored: Mapping[str, Stored]) -> NDArray[np.float32]:
    """(out,) the largest magnitude of the weights of each output channel."""
    return np.asarray(np.abs(kernel_of(name, stored)).max(axis=(1, 2, 3)), np.float32)


def _scale(largest: NDArray[np.float32], integer: int = _SIGNED) -> NDArray[np.float32]:
    """The scale at which a value is the largest integer; 1 / integer where the value is 0."""
    return np.asarray(np.where(largest > 0, largest, 1) / integer, np.float32)


def _centre(image: Pixels) -> Pixels:
    """At most 64 pixels a side."""
    top, left = (max(0, side - _NOISE_SIDE) // 2 for side in image.shape[:2])
    return image[top : top + _NOISE_SIDE, left : left + _NOISE_SIDE]


def _stretched(image: Pixels) -> Pixels:
    """The image from black to white: scales measured on dim photographs alone would clip bright ones."""
    low, high = int(image.min()), int(image.max())
    return np.rint((image - np.float64(low)) * (255 / max(1, high - low))).astype(np.uint8)


def _error(a: Sequence[Batch], b: Sequence[Batch]) -> float:
    """Mean square error; every image counts the same."""
    return float(np.mean([np.mean(np.square(x - y, dtype=np.float64)) for x, y in zip(a, b, strict=True)]))


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one engine takes on this CPU.

    Attributes:
        engine: backend and precision, e.g. "openvino bf16".
        int8: whether it ran the int8 file.
        seconds: median for one tile.
    """

    engine: str
    int8: bool
    seconds: float


Stopwatch = Callable[[Path, Path, ModelSpec], Sequence[Timing]]
"""(fp32 file, int8 file, spec of the int8 file) -> timings of the engines installed, for both files."""


def measure_timings(fp32: Path, int8: Path, spec: ModelSpec) -> list[Timing]:
    """Time both files on a 192×192 tile with every backend installed, in turns; all cores are used.

    Raises:
        InferenceError: an engine failed.
    """
    batch = np.random.default_rng(0).random((1, 3, _TIMED_SIDE, _TIMED_SIDE), dtype=np.float32)
    runs: dict[tuple[str, bool], Run] = {}
    plain = replace(spec, precision="fp32", arithmetic="fp32")
    for path, about, ways in ((fp32, plain, _OTHERS), (int8, spec, _INT8)):
        for backend, precision in ways:
            try:
                engine = registry.load(backend, path, about, Settings(precision=precision, device="cpu"))
            except BackendUnavailableError:
                continue
            name = f"{backend} {engine.info.precision}" if path == fp32 else f"{backend} int8"
            runs[name, path == int8] = timed(partial(engine.run, batch))
    seconds = interleave(runs, _REPETITIONS)
    return [Timing(name, is_int8, Spread.of(seconds[name, is_int8]).median) for name, is_int8 in runs]


def check_gain(name: str, lost: float, timings: Sequence[Timing]) -> float:
    """Check that an int8 file loses little and is the fastest.

    Args:
        name: of the file, for the message.
        lost: PSNR lost against the checkpoint on HR images, dB.
        timings: of this machine; at least one with int8 and one without.

    Returns:
        Its time as a share of that of the fastest engine without int8.

    Raises:
        ExportError: it loses more than 0.1 dB, or is not faster; the message has both numbers.
    """
    best = min((t for t in timings if t.int8), key=lambda t: t.seconds)
    other = min((t for t in timings if not t.int8), key=lambda t: t.seconds)
    share = best.seconds / other.seconds
    if lost <= MAX_LOSS and share < 1:
        return share
    raise ExportError(
        f"{name}: int8 loses {lost:.3f} dB (at most {MAX_LOSS} is allowed) and, on {best.engine}, takes "
        f"{share:.2f} times as long as {other.engine}, the fastest without int8 on this CPU (less than 1 is "
        "needed).",
        "Nothing was written. Leave int8 out of the precisions.",
    )
