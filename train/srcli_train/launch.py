"""Several processes on this machine, one a GPU, started by PyTorch's elastic launcher as torchrun does.

Several machines are torchrun's own business: `torchrun --nnodes N ... --no-python srcli train ...`.
"""

import logging
import os
import sys
from collections.abc import Sequence
from uuid import uuid4

from srcli.errors import ExitCode, TrainingError


def launched() -> bool:
    """Whether this process is one of several already."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run the same `srcli` command line in each of `processes` processes and wait for them.

    Returns:
        Exit code of the first one that failed, which has said why; 0 if none did.

    Raises:
        TrainingError: one of them was killed.
        KeyboardInterrupt: the run was asked to stop, and all of them have stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
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
