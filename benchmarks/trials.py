"""The trainings behind the arms of experiments: what is run, where, and in which order."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arms import Arm, Experiment
from srcli.errors import TrainingError
from srcli_train import checkpoint


@dataclass(frozen=True, slots=True)
class Trial:
    """One training. Arms that ask for the same, in one experiment or in several, share it.

    Attributes:
        arm: what is trained.
        updates: how many.
        start: the trial whose checkpoint it starts from; None: it starts anew, or from a shipped model.
    """

    arm: Arm
    updates: int
    start: "Trial | None" = None

    @property
    def name(self) -> str:
        """Of its folder: everything that decides what comes out, and nothing else."""
        arm = self.arm
        scales = [f"x{scale}" for scale in arm.scales]
        parts = "-".join([str(self.updates), arm.model, *scales, arm.recipe, *arm.settings])
        plain = "".join(c if c.isalnum() or c in ".-=" else "_" for c in parts.replace("network.", ""))
        start = self.start.name if self.start else arm.init
        return f"{plain}-from-{start}" if start else plain

    def command(self, data: Path, valid: Path | None, device: str) -> list[str]:
        """The arguments of `srcli`, but for the folders of runs."""
        arm = self.arm
        scales = [word for scale in arm.scales for word in ("-s", str(scale))]
        settings = [part for setting in arm.settings for part in ("--set", setting)]
        valids = ["--valid", str(valid)] if valid else []
        every = max(1, self.updates // 1000) * 100  # when there is also a row in the log
        numbers = ["--updates", str(self.updates), "--validate-every", str(every)]
        init = ["--init", arm.init] if arm.init and not self.start else []
        what = ["--model", arm.model, *scales, "--recipe", arm.recipe, *settings, *numbers, *init]
        return ["train", str(data), *valids, *what, "--device", device]


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how trials are run.

    Attributes:
        data, valid: folders of HR images.
        runs: folder of the run folders.
        device: of `srcli train`.
        jobs: trials at a time; the cores are shared out among them.
    """

    data: Path
    valid: Path | None
    runs: Path
    device: str
    jobs: int


def trial_of(arm: Arm, experiment: Experiment, longest: int) -> Trial:
    """The training of an arm, where the experiment's longest has so many updates."""
    updates = round(arm.share * longest)
    starts = [other for other in experiment.arms if other.label == arm.init]
    return Trial(arm, updates, trial_of(starts[0], experiment, longest) if starts else None)


def run_all(trials: Iterable[Trial], place: Place) -> None:
    """Each one once, in their order; one that starts from another waits for it, and stands behind it."""
    running: dict[str, Future[None]] = {}

    def run(trial: Trial) -> None:
        if trial.start:
            running[trial.start.name].result()
        _run(trial, place)

    with ThreadPoolExecutor(place.jobs) as pool:
        for trial in trials:
            if trial.name not in running:
                running[trial.name] = pool.submit(run, trial)
        for done in running.values():
            done.result()


def _run(trial: Trial, place: Place) -> None:
    """Train to the end, unless the checkpoint says that this is done."""
    folder = place.runs / trial.name
    if reached(folder) >= trial.updates:
        return
    arguments = [*trial.command(place.data, place.valid, place.device), "-o", str(folder)]
    if trial.start:
        arguments += ["--init", str(place.runs / trial.start.name / checkpoint.LAST)]
    arguments += ["--resume"] if checkpoint.holds_run(folder) else []
    print(shlex.join(["srcli", *arguments]), flush=True)
    _call(arguments, folder, trial, place.jobs)


def _call(arguments: Sequence[str], folder: Path, trial: Trial, jobs: int) -> None:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "srcli", *arguments]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.out").open("a") as output:
        done = subprocess.run(command, check=False, env=environment, stdout=output, stderr=output)
    if done.returncode:
        raise SystemExit(f"The arm {trial.arm.label!r} failed; {output.name} says why.")


def reached(folder: Path) -> int:
    """Updates in a run's checkpoint. The log may be ahead of it: its last row comes before the last save."""
    if not checkpoint.holds_run(folder):
        return 0
    try:
        return checkpoint.load(folder)[1].update
    except TrainingError:  # the arm's own command says what is wrong with it
        return 0
