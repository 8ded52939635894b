"""A PyTorch network on a GPU: pinned memory both ways, and one CUDA graph a shape in place of many launches.

Import only where torch is wanted. Without a GPU, tests record, replay and give back with a stand-in of it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from srcli.backends.base import Batch
from srcli.backends.failures import one_line

Tensor = torch.Tensor
Shape = tuple[int, ...]
Work = Callable[[], None]

MAX_SHAPES = 4
"""Input shapes whose buffers and graphs are kept: two a picture with the self-ensemble."""


class Gpu(Protocol):
    """A GPU as far as this needs it. Every method raises RuntimeError if it fails."""

    def pinned(self, shape: Shape) -> Tensor:
        """float32 on the host that the GPU copies from and to directly."""

    def empty(self, shape: Shape) -> Tensor:
        """float32 on the GPU."""

    def at_work(self) -> AbstractContextManager[object]:
        """What is queued inside runs on a stream of its own."""

    def record(self, work: Work) -> Work:
        """A graph of what `work` queues, as what replays it; nothing of it has run."""

    def wait(self) -> None:
        """Until everything queued is done."""

    def give_back(self) -> None:
        """Memory that nothing uses any more becomes free for others."""


@dataclass(slots=True)
class _Slot:
    """What one input shape needs: memory that stays where it is, and a graph once it came twice."""

    host_lr: Tensor
    lr: Tensor
    host_sr: Tensor | None = None
    sr: Tensor | None = None
    runs: int = 0
    replay: Work | None = None


class Replayed:
    """Runs a network (N, 3, H, W) -> (N, 3, sH, sW), both float32 on the GPU, for batches on the host.

    A shape's first run is as usual, which lets cuDNN choose its kernels; the second is recorded.

    Args:
        network: queues its work and waits for nothing.
        gpu: where it lies.
        tell: told once if it cannot be recorded.

    Attributes:
        problem: why it cannot be recorded and runs step by step, with the same result; empty if it can.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], gpu: Gpu, tell: Callable[[str], None]) -> None:
        self._network, self._gpu, self._tell = network, gpu, tell
        self._slots: dict[Shape, _Slot] = {}  # the least recently used first
        self.problem = ""

    @property
    def graphs(self) -> int:
        """Shapes that are replayed."""
        return sum(slot.replay is not None for slot in self._slots.values())

    def __call__(self, lr: Batch) -> Batch:
        """The result is the caller's own.

        Raises:
            RuntimeError: of PyTorch; all memory was given back.
        """
        try:
            return self._run(lr)
        except RuntimeError:
            self._slots.clear()
            self._gpu.give_back()
            raise

    def _run(self, lr: Batch) -> Batch:
        with self._gpu.at_work():
            slot = self._slot(lr.shape)
            slot.host_lr.numpy()[...] = lr
            slot.lr.copy_(slot.host_lr, non_blocking=True)
            sr = self._queue(slot)
            if slot.host_sr is None:
                slot.host_sr = self._gpu.pinned(tuple(sr.shape))
            slot.host_sr.copy_(sr, non_blocking=True)
            self._gpu.wait()
        result: Batch = slot.host_sr.numpy().copy()
        return result

    def _slot(self, shape: Shape) -> _Slot:
        """The shape's slot, most recently used from now on."""
        slot = self._slots.pop(shape, None) or _Slot(self._gpu.pinned(shape), self._gpu.empty(shape))
        self._slots[shape] = slot
        while len(self._slots) > MAX_SHAPES:
            del self._slots[next(iter(self._slots))]
        return slot

    def _queue(self, slot: _Slot) -> Tensor:
        slot.runs += 1
        if slot.runs == 2 and not self.problem:
            self._record(slot)
        if slot.replay is None or slot.sr is None:
            return self._network(slot.lr)
        slot.replay()
        return slot.sr

    def _record(self, slot: _Slot) -> None:
        """What fails here once, for lack of memory too, is not tried again."""

        def work() -> None:
            slot.sr = self._network(slot.lr)

        try:
            slot.replay = self._gpu.record(work)
        except RuntimeError as error:
            self.problem = one_line(error)
            self._tell(f"torch: no CUDA graph could be recorded ({self.problem}): tiles run step by step.")


class Cuda:
    """`Gpu` over a CUDA device of PyTorch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # of all graphs: they run in turns

    def pinned(self, shape: Shape) -> Tensor:
        """Page-locked."""
        return torch.empty(shape, dtype=torch.float32, pin_memory=True)

    def empty(self, shape: Shape) -> Tensor:
        """On the device."""
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def at_work(self) -> AbstractContextManager[object]:
        """A stream that all runs share; the device becomes the thread's current one."""
        return torch.cuda.stream(self._stream)

    def record(self, work: Work) -> Work:
        """Other threads may use other GPUs meanwhile."""
        graph = torch.cuda.CUDAGraph()
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode):
            work()
        return graph.replay

    def wait(self) -> None:
        """For the stream."""
        self._stream.synchronize()

    def give_back(self) -> None:
        """What PyTorch holds in reserve, on all devices."""
        torch.cuda.empty_cache()
