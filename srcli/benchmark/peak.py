"""The machine's best: how fast it multiplies two large matrices in a precision."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from srcli.backends import libraries

SIDE = 2048
"""Of the matrices; their product takes 2 * SIDE**3 floating-point operations, 17 billion."""

GPU_SIDE = 8192
"""The same on a GPU, which smaller ones do not fill: 1.1 trillion."""

_ON_GPU = 8  # products for each synchronisation: one alone is soon over
_TORCH_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product ready to run.

    Attributes:
        run: does it.
        flop: floating-point operations of one run; a multiply-add counts as two.
        by: what computes it, e.g. "openvino".
    """

    run: Callable[[], object]
    flop: float
    by: str


def product(device: str, precision: str, threads: int) -> Product | None:
    """The product that shows the peak of a device in a precision; None where nothing here can show it.

    On the CPU it is OpenVINO's, or numpy's for fp32 where OpenVINO is not installed (numpy's libraries
    take their number of threads from the environment). On CUDA it is PyTorch's.
    """
    if device.startswith("cuda"):
        return _by_torch(device, precision)
    if device != "cpu":
        return None
    return _by_openvino(precision, threads) or (_by_numpy() if precision == "fp32" else None)


def _matrices() -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    return draw.random((SIDE, SIDE), np.float32), draw.random((SIDE, SIDE), np.float32)


def _by_numpy() -> Product:
    a, b = _matrices()
    out = np.empty_like(a)
    return Product(lambda: np.matmul(a, b, out=out), 2.0 * SIDE**3, "numpy")


def _by_openvino(precision: str, threads: int) -> Product | None:
    """The second matrix is a constant, as the weights of a network are."""
    if find_spec("openvino") is None or precision not in ("fp32", "bf16"):
        return None
    openvino = libraries.openvino()
    ops = openvino.opset13
    a, b = _matrices()
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision.replace("fp32", "f32"),
    }
    try:
        left = ops.parameter([SIDE, SIDE], np.float32)
        model = openvino.Model([ops.matmul(left, ops.constant(b), False, False)], [left])
        more = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        compiled = openvino.Core().compile_model(model, "CPU", config | more)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    except (ImportError, RuntimeError):
        return None
    request = compiled.create_infer_request()
    run = Product(lambda: request.infer([a], share_inputs=True), 2.0 * SIDE**3, "openvino")
    return run if used == precision.replace("fp32", "f32") else None


def _by_torch(device: str, precision: str) -> Product | None:
    if find_spec("torch") is None:
        return None
    import torch

    dtype = getattr(torch, _TORCH_TYPES[precision])
    a, b = (torch.rand(GPU_SIDE, GPU_SIDE, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(_ON_GPU):
            torch.mm(a, b, out=out)
        torch.cuda.synchronize(device)

    return Product(run, 2.0 * GPU_SIDE**3 * _ON_GPU, "torch")
