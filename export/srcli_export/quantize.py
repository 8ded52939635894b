"""Exported float32 graph -> the same graph with its body's convolutions in 8-bit integers (Q/DQ).

Only convolutions inside a residual connection are quantised: the head sees pixels, the upsampler and the
tail make them, and an error there is seen as it is. Integers stand before a convolution alone, never after
it, so that residual sums keep what eight bits would drop.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from srcli.errors import ExportError
from srcli_export.layers import Conv, FineConv, Layer, Skip
from srcli_export.runtime import Batch, Pixels, to_batch

_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Tells the quantiser that there is nothing to fuse; it would advise to look."""
_OPTIONS = {
    "ActivationSymmetric": True,  # what TensorRT takes
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}


def body_convolutions(layers: Sequence[Layer]) -> list[str]:
    """Names of the convolutions inside residual connections, in running order."""
    return [name for layer in layers if isinstance(layer, Skip) for name in _convolutions(layer.layers)]


def _convolutions(layers: Sequence[Layer]) -> Iterator[str]:
    for layer in layers:
        match layer:
            case Conv(name) | FineConv(name):
                yield name
            case Skip(_, inner):
                yield from _convolutions(inner)


def quantized(path: Path, convolutions: Sequence[str], images: Sequence[Pixels]) -> onnx.ModelProto:
    """The model with int8 in the convolutions named: symmetric, per channel for weights, bias in float32.

    Args:
        path: an exported file in float32.
        convolutions: names of Conv nodes.
        images: (H, W, 3) uint8 LR photographs; the extremes of each tensor over them, and over the same
            with black and white in them, set its range.

    Returns:
        A model with all weights inside and no metadata.

    Raises:
        ExportError: ONNX Runtime cannot quantise it.
    """
    model = onnx.load(path)
    onnx.helper.set_model_props(model, _PREPARED)
    with TemporaryDirectory(prefix="srcli-int8-") as folder, _quiet():
        try:
            # here, for it needs parts of ONNX Runtime that all other work can do without
            from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

            quantize_static(
                model,
                Path(folder) / "int8.onnx",
                _Reader([*images, *map(_stretched, images)]),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=list(convolutions),
                extra_options=_OPTIONS,
            )
            result = onnx.load(Path(folder) / "int8.onnx")
        except Exception as error:  # onnx, ONNX Runtime and the quantiser each raise their own
            raise ExportError(f"{path.name}: ONNX Runtime cannot quantise it ({error}).") from error
    _spare_sums(result.graph)
    del result.metadata_props[:], result.graph.value_info[:]
    result.producer_name, result.producer_version = "srcli", ""
    return result


def _spare_sums(graph: onnx.GraphProto) -> None:
    """Let all but convolutions read a tensor itself where the quantiser gave them its eight bits."""
    before = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    widened = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    original = {name: before[eight] for name, eight in widened.items() if eight in before}
    for node in graph.node:
        if node.op_type != "Conv":
            node.input[:] = [original.get(name, name) for name in node.input]


class _Reader:
    """LR photographs one after the other, as the calibrator asks for them: its `CalibrationDataReader`."""

    def __init__(self, images: Sequence[Pixels]) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, Batch] | None:
        """The next image as the network's input, or None after the last."""
        image = next(self._left, None)
        return None if image is None else {"lr": to_batch(image)}


def _stretched(image: Pixels) -> Pixels:
    """From black to white: what was calibrated on dim photographs alone would clip bright ones."""
    low, high = int(image.min()), int(image.max())
    return np.rint((image - np.float64(low)) * (255 / max(1, high - low))).astype(np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser's advice, which goes to the root logger, is not for the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
