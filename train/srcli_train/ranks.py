"""Data parallelism: ranks share each minibatch and average their gradients.

torchrun starts them, or `launch` as torchrun does; several machines are torchrun's own business
(`torchrun --nnodes N ... --no-python srcli train ...`). Every rank draws the same minibatch and takes its
share; after the averaging all hold the same gradients, so all make the same update. What else they must agree
on, the place in the schedule and whether to stop, travels with the gradients in the same message.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn

from srcli.errors import ExitCode, SrcliError, TrainingError, UsageError
from srcli_train.checkpoint import PATIENCE_SECONDS

Answer = TypeVar("Answer")


def is_first_rank() -> bool:
    """Whether this process validates, logs and writes; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def local_rank() -> int | None:
    """This process's number on its machine; None without torchrun."""
    number = os.environ.get("LOCAL_RANK")
    return None if number is None else int(number)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What all ranks hold after an update's averaging.

    Attributes:
        loss: mean over the minibatch.
        progress: the first rank's share of the run done, 0-1.
        stop: whether any rank was asked to stop.
    """

    loss: Tensor
    progress: float
    stop: bool


def check_share(batch: int, ranks: int) -> None:
    """Refuse a minibatch that so many ranks cannot share evenly.

    Raises:
        UsageError: see above.
    """
    if batch % ranks:
        hint = f"Choose a --batch that is a multiple of {ranks}."
        raise UsageError(f"{ranks} processes cannot share a minibatch of {batch} evenly.", hint)


class Ranks:
    """The processes of this run; a single one without torchrun.

    Raises:
        TrainingError: from every exchange: another rank is gone, or none was there.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not dist.is_initialized():
            with self._exchange():
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process validates, logs and writes."""
        return is_first_rank()

    def share(self, batch: int) -> slice:
        """This rank's patches of a minibatch.

        Raises:
            UsageError: the shares would differ, and so weigh differently in the average.
        """
        check_share(batch, self.size)
        return slice(self.rank, None, self.size)

    def average(
        self,
        parameters: Iterable[nn.Parameter],
        loss: Tensor,
        progress: float,
        stop: bool,
        means: Sequence[Tensor] = (),
    ) -> Agreed:
        """Average the gradients that exist, and agree on the rest.

        Args:
            parameters: those of the network; the same ones have gradients in every rank.
            loss: of this rank's share, a scalar.
            progress: of the run; the first rank's counts.
            stop: whether this process was asked to stop after this update.
            means: float32 values to be averaged like the gradients.
        """
        if self.size == 1:
            return Agreed(loss, progress, stop)
        grads = [*(p.grad for p in parameters if p.grad is not None), *means]
        rest = loss.new_tensor([progress if self.first else 0.0, float(stop)]) * self.size
        flat = torch.cat([*(g.flatten() for g in grads), loss.view(1), rest])
        with self._exchange():
            dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [*(g.numel() for g in grads), 1, 2])
        for grad, mean in zip(grads, parts, strict=False):
            grad.copy_(mean.view(grad.shape))
        first_progress, stops = parts[-1].tolist()
        return Agreed(parts[-2][0].clone(), first_progress, stops > 0)  # a view would keep all of `flat`

    def from_first(self, work: Callable[[], Answer]) -> Answer:
        """What `work` returns or raises in the first rank, in every rank; the others do not call it.

        Args:
            work: returns what can be pickled.
        """
        if self.size == 1:
            return work()
        sent: list[object] = [_outcome(work) if self.first else None]
        with self._exchange():
            dist.broadcast_object_list(sent, 0)
        if isinstance(sent[0], SrcliError):
            raise sent[0]
        return cast(Answer, sent[0])

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Around messages between ranks: their errors as TrainingError."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:  # the latter: MASTER_ADDR or MASTER_PORT is missing
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(
                f"Process {self.rank} of {self.size} does not reach the others ({reason}).",
                "Their own output says why; --resume goes on from the last checkpoint.",
            ) from error


def _outcome(work: Callable[[], Answer]) -> Answer | SrcliError:
    try:
        return work()
    except SrcliError as error:
        return error


def launched() -> bool:
    """Whether this process is one of several already."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run the same `srcli` command line in each of `processes` processes and wait for them.

    Returns:
        Exit code of the first one that failed, which has printed why; 0 if none did.

    Raises:
        TrainingError: one of them was killed.
        KeyboardInterrupt: the run was asked to stop, and all of them have stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    # an update ends and a checkpoint is saved before PyTorch, which waits 30 seconds, may kill a process
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(int(2 * PATIENCE_SECONDS)))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "srcli", *arguments)
    except ChildFailedError as error:
        return _exit_code(processes, *error.get_first_failure())
    except SignalException as error:
        raise KeyboardInterrupt from error
    return ExitCode.OK


def _exit_code(processes: int, rank: int, failure: object) -> int:
    code = int(getattr(failure, "exitcode", ExitCode.FAILED))
    if code >= 0:
        return code
    raise TrainingError(
        f"Process {rank} of {processes} was killed by signal {-code}; the others were stopped.",
        "If memory ran out, lower --batch or --patch. --resume goes on from the last checkpoint.",
    )
