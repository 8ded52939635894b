"""Data parallelism: processes that share each minibatch and average their gradients.

torchrun starts them. Every process draws the same minibatch and takes its share; after the averaging
all hold the same gradients, so all make the same update. What else they must agree on, the place in
the schedule and whether to stop, travels with the gradients in the same message.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from srcli.errors import SrcliError, TrainingError, UsageError

Known = TypeVar("Known")


def first_process() -> bool:
    """Whether this is the process that validates, logs and writes; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def local_rank() -> int | None:
    """This process's number on its machine; None without torchrun."""
    number = os.environ.get("LOCAL_RANK")
    return None if number is None else int(number)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What all processes hold after an update's averaging.

    Attributes:
        loss: mean over the minibatch.
        progress: the first process's share of the run done, 0-1.
        stop: whether any process was asked to stop.
    """

    loss: Tensor
    progress: float
    stop: bool


def even_share(batch: int, processes: int) -> None:
    """Refuse a minibatch that so many processes cannot share evenly.

    Raises:
        UsageError: see above.
    """
    if batch % processes:
        hint = f"Choose a --batch that is a multiple of {processes}."
        raise UsageError(f"{processes} processes cannot share a minibatch of {batch} evenly.", hint)


class Peers:
    """The processes of this run; a single one without torchrun.

    Raises:
        TrainingError: from all that asks the others: one of them has gone, or none was there.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not dist.is_initialized():
            with self._together():
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
        even_share(batch, self.size)
        return slice(self.rank, None, self.size)

    def average(
        self,
        parameters: Iterable[nn.Parameter],
        loss: Tensor,
        progress: float,
        stop: bool,
        seen: Sequence[Tensor] = (),
    ) -> Agreed:
        """Average the gradients that exist, and agree on the rest.

        Args:
            parameters: those of the network; the same ones have gradients in every process.
            loss: of this process's share, a scalar.
            progress: of the run; the first process's counts.
            stop: whether this process was asked to stop after this update.
            seen: float32 values to be averaged like the gradients.
        """
        if self.size == 1:
            return Agreed(loss, progress, stop)
        grads = [*(p.grad for p in parameters if p.grad is not None), *seen]
        said = loss.new_tensor([progress if self.first else 0.0, float(stop)]) * self.size
        flat = torch.cat([*(g.flatten() for g in grads), loss.view(1), said])
        with self._together():
            dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [*(g.numel() for g in grads), 1, 2])
        for grad, mean in zip(grads, parts, strict=False):
            grad.copy_(mean.view(grad.shape))
        first_progress, stops = parts[-1].tolist()
        return Agreed(parts[-2][0].clone(), first_progress, stops > 0)  # a view would keep all of `flat`

    def ask_first(self, work: Callable[[], Known]) -> Known:
        """What `work` gives in the first process, or raises there, in every process; the others do not work.

        Args:
            work: gives what can be pickled.
        """
        if self.size == 1:
            return work()
        said: list[object] = [_outcome(work) if self.first else None]
        with self._together():
            dist.broadcast_object_list(said, 0)
        if isinstance(said[0], SrcliError):
            raise said[0]
        return cast(Known, said[0])

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:  # the latter: nobody says where the others are
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(
                f"Process {self.rank} of {self.size} does not reach the others ({reason}).",
                "What stopped them is said there or above; --resume goes on from the last checkpoint.",
            ) from error


def _outcome(work: Callable[[], Known]) -> Known | SrcliError:
    try:
        return work()
    except SrcliError as error:
        return error
