"""The loss of a minibatch and its gradients; on a GPU replayed as one CUDA graph a scale.

A small network's update is a few hundred kernels of some microseconds each: started one by one, a GPU
waits for Python most of the time. So the first minibatches of each scale run as they are, which also
lets cuDNN choose its kernels; then forward and backward are recorded once and replayed.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from srcli.imaging.ensemble import TRANSFORMS
from srcli_train.precision import lowered
from srcli_train.recipes import Recipe
from srcli_train.recorded import Record
from srcli_train.teacher import Teacher
from srcli_train.validation import batch_of

WARM_UP = 3
"""Minibatches of a scale before it is recorded."""


class Gradients:
    """Computes what an optimizer needs from a minibatch.

    Args:
        network: in training, on `device`; its gradients are None at every call.
        recipe: says loss and precision.
        device: of the network.
        teacher: whose answers count as well, as far as the recipe says; None where it says nothing.
        record: how work is recorded; None for never.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        device: torch.device,
        teacher: Teacher | None = None,
        record: Record | None = None,
    ) -> None:
        self._network, self._recipe, self._device = network, recipe, device
        self._teacher = teacher
        self._sides = torch.arange(len(TRANSFORMS), device=device)
        self._record = record
        self._seen = Counter[int]()
        self._recorded: dict[int, _Recorded] = {}

    def __call__(self, lr: Tensor, hr: Tensor, scale: int, side: int = 0) -> Tensor:
        """Leave the gradients in the parameters that took part.

        Args:
            lr, hr: (N, H, W, 3) and (N, scale*H, scale*W, 3) uint8 on the device; every minibatch of a
                scale has the same shape.
            scale: of this minibatch.
            side: from which the teacher sees it, one of `srcli.imaging.ensemble.TRANSFORMS`.

        Returns:
            The loss, a scalar without history: L1 or L2 on 0-255 (section 4.2), and the teacher's part.
        """
        given = lr, hr, self._sides[side : side + 1]
        self._seen[scale] += 1
        if self._record is None or self._seen[scale] <= WARM_UP:
            return self._compute(*given, scale)
        if scale not in self._recorded:
            self._recorded[scale] = _Recorded(self._network, self._compute, given, scale, self._record)
        return self._recorded[scale](*given)

    def replays(self, scale: int) -> bool:
        """Whether the last minibatch of this scale was a replay: its gradients lie where all others' will."""
        return scale in self._recorded

    def _compute(self, lr: Tensor, hr: Tensor, side: Tensor, scale: int) -> Tensor:
        with _fastest_kernels():
            image = batch_of(lr, self._device)
            answer = self._teacher(image, scale, side) if self._teacher else None
            with lowered(self._device, self._recipe.precision):
                sr = self._network(image, scale).float()
            loss = _loss((sr - batch_of(hr, self._device)) * 255, self._recipe)
            if answer is not None:
                loss = loss + self._recipe.distill * ((sr - answer) * 255).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _loss(error: Tensor, recipe: Recipe) -> Tensor:
    """Of (N, 3, H, W) differences in levels: over pixels, and as far as the recipe says over frequencies.

    The transform keeps energy (both of its ways are scaled alike), so that both parts of L1 have one scale.
    """
    pixels = error.abs().mean() if recipe.loss == "l1" else error.square().mean()
    if not recipe.frequency:
        return pixels
    spectrum: Tensor = torch.fft.rfft2(error, norm="ortho").abs().mean()
    return pixels.lerp(spectrum, recipe.frequency)


class _Recorded:
    """The work of one scale on tensors of its own, and the gradients that it writes."""

    def __init__(
        self,
        network: nn.Module,
        compute: Callable[[Tensor, Tensor, Tensor, int], Tensor],
        example: tuple[Tensor, Tensor, Tensor],
        scale: int,
        record: Record,
    ) -> None:
        self._given = lr, hr, side = example[0].clone(), example[1].clone(), example[2].clone()

        def work() -> None:
            self._loss = compute(lr, hr, side, scale)

        self._replay = record(work)
        self._gradients = [(p, p.grad) for p in network.parameters() if p.grad is not None]

    def __call__(self, *given: Tensor) -> Tensor:
        for own, new in zip(self._given, given, strict=True):
            own.copy_(new)
        self._replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()


def _fastest_kernels() -> AbstractContextManager[None]:
    """cuDNN tries its kernels on a shape once; only here, where shapes repeat for hours."""
    flags: Callable[..., AbstractContextManager[None]] = torch.backends.cudnn.flags
    return flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)
