"""Gradients of convolution weights as matrix products: faster than PyTorch's own on CPUs with AVX2 alone.

There oneDNN reaches a third of the CPU's rate with them (a quarter for wide upsamplers), and products over
a half. Everything else of a convolution stays PyTorch's.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode

_NARROW = 16
"""Channels below which products are the slower way."""


def wanted(device: torch.device, precision: str) -> bool:
    """Whether they pay where a network trains, in "bf16" or "fp32"."""
    capability: Callable[[], str] = torch.backends.cpu.get_cpu_capability
    return device.type == "cpu" and precision == "fp32" and capability() == "AVX2"


class Products(TorchFunctionMode):
    """Within it, convolutions that keep height and width compute their weights' gradients by products."""

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and _suits(*args):
            return _Convolution.apply(*args[:3])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _suits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether it is a wide convolution as `networks.layers.conv` makes them, whose weights learn."""
    side = weight.shape[2]
    plain = (stride, padding, dilation, groups) == ((1, 1), (side // 2, side // 2), (1, 1), 1)
    odd = weight.shape[2] == weight.shape[3] and side % 2 == 1
    return plain and odd and bias is not None and weight.requires_grad and min(weight.shape[:2]) >= _NARROW


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        padding, given = weight.shape[2] // 2, None
        if ctx.needs_input_grad[0]:
            given = conv2d_input(x.shape, weight, gradient, padding=padding)  # type: ignore[no-untyped-call]
        return given, weight_gradient(x, gradient, weight.shape[2]), gradient.sum((0, 2, 3))


def weight_gradient(x: Tensor, gradient: Tensor, side: int) -> Tensor:
    """Of a convolution of odd kernel that keeps height and width.

    With the zeros that it pads with, all pixels of the minibatch are one long list of rows, in which a
    kernel's tap is a constant distance: each is one product of the gradient with the input so far ahead. The
    gradient is zero where that runs into the padding.

    Args:
        x: (N, I, H, W), what the convolution has read; channels_last saves copies.
        gradient: (N, O, H, W), of the loss by what it gave.
        side: of the kernel.

    Returns:
        (O, I, side, side), channels_last.
    """
    inputs, outputs, padding = x.shape[1], gradient.shape[1], side // 2
    width = x.shape[3] + 2 * padding
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding)).reshape(-1, inputs)
    wide = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, 2 * padding, 0, 2 * padding)).reshape(-1, outputs)
    farthest = (side - 1) * (width + 1)
    left = wide[: len(wide) - farthest].T  # the rest is padding of the last picture
    taps = x.new_empty(side, side, outputs, inputs)
    for row in range(side):
        for column in range(side):
            ahead = row * width + column
            torch.mm(left, rows[ahead : ahead + left.shape[1]], out=taps[row, column])
    return taps.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
