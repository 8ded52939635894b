"""Shares of a folder for many processes that know nothing of each other: which files a share holds."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from srcli.errors import UsageError, shown
from srcli.jobs.inputs import Found
from srcli.jobs.outputs import name_key

_HINT = "Write it like 3/16; or auto, or auto/16, in a job of Slurm, Kubernetes, AWS Batch or SkyPilot."


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shares of a folder; `index` counts from 0, its text from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def holds(self, relative: Path) -> bool:
        """Whether the file of this path below the input folder belongs to it: by the path alone."""
        digest = sha256(relative.as_posix().encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest) % self.count == self.index


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """The variables in which a scheduler tells a process its number.

    Attributes:
        name: in messages.
        index: its number.
        count: of how many; "" where it does not tell.
        first, step: of the numbers; "" where they count from 0 by 1.
    """

    name: str
    index: str
    count: str = ""
    first: str = ""
    step: str = ""


_TASKS = _Scheduler("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
"""Not SLURM_NTASKS: a batch script has that too, is number 0, and is no task of several."""
_SCHEDULERS = (
    _Scheduler(
        "a Slurm array",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
    ),
    _TASKS,
    _Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Scheduler("SkyPilot's jobs", "SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS"),
    _Scheduler("SkyPilot's nodes", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    _Scheduler("a Kubernetes Indexed Job", "JOB_COMPLETION_INDEX"),
)
"""In the order in which they are asked."""


def parse(text: str, environ: Mapping[str, str]) -> Shard:
    """ "3/16", or "auto" and "auto/16" by the variables of a scheduler; 16 is the number of all shards.

    Raises:
        UsageError: it is no shard, or the scheduler does not tell which, or tells another number.
    """
    match = re.fullmatch(r"(auto|\d+)(?:/(\d+))?", text.strip())
    if match is None or not (match[2] or match[1] == "auto"):
        raise UsageError(f"--shard {text!r} is no share of a folder.", _HINT)
    count = int(match[2]) if match[2] else None
    if match[1] == "auto":
        return _scheduled(count, environ)
    return _checked(int(match[1]) - 1, count or 0, f"--shard {text}", _HINT)


def _scheduled(count: int | None, environ: Mapping[str, str]) -> Shard:
    """The shard that a scheduler names; `count` is the number of all, if the command line says it."""
    scheduler = next((one for one in _SCHEDULERS if _is_used(one, environ)), None)
    if scheduler is None:
        listing = ", ".join(one.index for one in _SCHEDULERS)
        raise UsageError(
            f"--shard auto: no scheduler tells this process its number ({listing}).",
            "Start it by one that does, or say which: --shard 3/16.",
        )
    told = _number(scheduler.count, environ)
    if told is None and count is None:
        raise UsageError(
            f"--shard auto: {scheduler.name} tells the number of this shard, not how many there are.",
            "Write --shard auto/N with the number of all.",
        )
    if None not in (told, count) and told != count:
        raise UsageError(
            f"--shard auto/{count}: {scheduler.count} says {told}.",
            f"If only some shards are to run again, say which: --shard I/{count}.",
        )
    index, first = _number(scheduler.index, environ) or 0, _number(scheduler.first, environ) or 0
    where, step = divmod(index - first, _number(scheduler.step, environ) or 1)
    about = f"--shard auto: {scheduler.index} {index}"
    hint = "Number the jobs without gaps, or say which shard each is: --shard I/N."
    if step:
        raise UsageError(f"{about} is not one of the numbers that {scheduler.step} gives.", hint)
    return _checked(where, count or told or 0, about, hint)


def _is_used(scheduler: _Scheduler, environ: Mapping[str, str]) -> bool:
    if scheduler is _TASKS and (_number(scheduler.count, environ) or 1) < 2:
        return False  # every job of Slurm has a number
    return bool(environ.get(scheduler.index))


def _number(name: str, environ: Mapping[str, str]) -> int | None:
    text = environ.get(name, "") if name else ""
    if text and not text.isdecimal():
        raise UsageError(f"--shard auto: {name} is {text!r}, no number.", "Say which shard: --shard 3/16.")
    return int(text) if text else None


def _checked(index: int, count: int, about: str, hint: str) -> Shard:
    if not 0 <= index < count:
        raise UsageError(f"{about}: there is no shard {index + 1} of {count}.", hint)
    return Shard(index, count)


def check_names(
    files: Sequence[str],
    may_be: Callable[[str], list[Found]],
    is_it: Callable[[str], Found],
    name: Callable[[Found], Path],
) -> None:
    """Refuse two files of a folder whose outputs would have one name where case does not count.

    Args:
        files: all paths below the folder.
        may_be: all that a file may be, by its path alone.
        is_it: what it is; it is opened for that, and only where names may meet.
        name: the output's name of a file.

    Raises:
        UsageError: naming both files and the output.
    """
    taken: dict[str, str] = {}
    met: dict[str, None] = {}
    for file in files:
        for key in {name_key(name(one)) for one in may_be(file)}:
            if taken.setdefault(key, file) != file:
                met |= {taken[key]: None, file: None}
    outputs: dict[str, str] = {}
    for file in met:
        output = name(is_it(file))
        other = outputs.setdefault(name_key(output), file)
        if other != file:
            raise UsageError(
                f"{shown(other)} and {shown(file)} would both become {shown(output)}.",
                "Rename one of them; shards name each output by its input alone.",
            )
