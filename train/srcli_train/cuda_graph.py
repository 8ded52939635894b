"""CUDA graphs of an update: captured once for each scale, then replayed.

A small network's update is a few hundred kernels of some microseconds each. Started one by one, a GPU waits
for Python most of the time. So the first minibatches of each scale run as they are, which also lets cuDNN
choose its kernels; then forward and backward are captured and replayed.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Minibatches of a scale before its graph is captured."""

Work = Callable[[], None]
Capture = Callable[[Work], Work]
"""Captures work on memory that stays where it is, and returns its replay."""
Compute = Callable[[Tensor, Tensor, int], Tensor]
"""(lr, hr, scale) -> loss; leaves the gradients in the network's parameters."""


def graph_capture(device: torch.device) -> Capture | None:
    """How work on this device is captured; None where single kernels are no slower."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Captures work on a GPU without running it. Its graphs run one after another and share their memory."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """The graph's replay."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, pool=self._pool):
            work()
        return graph.replay


class GraphedGradients:
    """Loss and gradients of minibatches: computed as they are, or replayed from a graph of their scale.

    Args:
        network: in training; its gradients are None at every call.
        compute: forward, loss and backward.
        capture: how they are captured; None for never.
    """

    def __init__(self, network: nn.Module, compute: Compute, capture: Capture | None) -> None:
        self._network, self._compute, self._capture = network, compute, capture
        self._counts = Counter[int]()
        self._graphs: dict[int, _Graph] = {}

    def __call__(self, lr: Tensor, hr: Tensor, scale: int) -> Tensor:
        """Leave the gradients in the parameters that took part.

        Args:
            lr, hr: (N, H, W, 3) and (N, scale*H, scale*W, 3) uint8 on the device; every minibatch of a
                scale has the same shape.
            scale: of this minibatch.

        Returns:
            The loss, a scalar without history.
        """
        self._counts[scale] += 1
        if self._capture is None or self._counts[scale] <= WARM_UP:
            return self._compute(lr, hr, scale)
        if scale not in self._graphs:
            self._graphs[scale] = _Graph(self._network, self._compute, (lr, hr), scale, self._capture)
        return self._graphs[scale](lr, hr)

    def graph_of(self, scale: int) -> int | None:
        """The scale, if its last minibatch was replayed: its gradients then lie where all later ones will."""
        return scale if scale in self._graphs else None


class _Graph:
    """The graph of one scale, on input tensors of its own, and the gradients that it writes."""

    def __init__(
        self,
        network: nn.Module,
        compute: Compute,
        example: tuple[Tensor, Tensor],
        scale: int,
        capture: Capture,
    ) -> None:
        self._lr, self._hr = example[0].clone(), example[1].clone()

        def work() -> None:
            self._loss = compute(self._lr, self._hr, scale)

        self._replay = capture(work)
        self._gradients = [(p, p.grad) for p in network.parameters() if p.grad is not None]

    def __call__(self, lr: Tensor, hr: Tensor) -> Tensor:
        self._lr.copy_(lr)
        self._hr.copy_(hr)
        self._replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()
