"""Work that is recorded once and replayed: CUDA graphs on a GPU, which else waits for Python."""

from collections.abc import Callable

import torch

Work = Callable[[], None]
Record = Callable[[Work], Work]
"""Records the work, on memory that stays where it is; gives what does it."""


def recorder(device: torch.device) -> Record | None:
    """How work is recorded on a device; None where single kernels are no slower."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Records work on a GPU without running it. Graphs run in turns, so they share their memory."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """The graph's replay."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, pool=self._pool):
            work()
        return graph.replay
