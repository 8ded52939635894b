"""Data parallelism: processes that share each minibatch and average their gradients.

Start them with torchrun. Every process draws the same minibatch and takes its share; after the
averaging all hold the same gradients, so all make the same update.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from srcli.errors import UsageError


def first_process() -> bool:
    """Whether this is the process that validates, logs and writes; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


class Peers:
    """The processes of this run; a single one without torchrun."""

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process validates, logs and writes."""
        return first_process()

    def share(self, batch: int) -> slice:
        """This process's patches of a minibatch.

        Raises:
            UsageError: the shares would differ, and so weigh differently in the average.
        """
        if batch % self.size:
            hint = f"Choose a --batch that is a multiple of {self.size}."
            raise UsageError(f"{self.size} processes cannot share a minibatch of {batch} evenly.", hint)
        return slice(self.rank, None, self.size)

    def average(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, progress: float
    ) -> tuple[Tensor, float]:
        """Average the gradients that exist, and the loss; everybody takes the first process's progress.

        Returns:
            (mean loss, progress of the first process).
        """
        if self.size == 1:
            return loss, progress
        grads = [p.grad for p in parameters if p.grad is not None]
        own = loss.new_tensor([progress * self.size if self.first else 0.0])
        flat = torch.cat([*(g.flatten() for g in grads), loss.view(1), own])
        dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [*(g.numel() for g in grads), 1, 1])
        for grad, mean in zip(grads, parts, strict=False):
            grad.copy_(mean.view(grad.shape))
        return parts[-2][0], float(parts[-1])
