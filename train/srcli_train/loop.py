"""The training loop, top to bottom: data, network, update, validation, checkpoint."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srcli.errors import TrainingError
from srcli.imaging.ensemble import TRANSFORMS
from srcli.interrupt import Interrupt
from srcli_train import runfolder
from srcli_train.budget import agreed_minutes
from srcli_train.checkpoint import Checkpoint
from srcli_train.csvlog import CsvLog
from srcli_train.data import Pictures
from srcli_train.degradations import fixed, numbers
from srcli_train.device import find_device
from srcli_train.finite import all_finite, first_bad, not_finite
from srcli_train.gradients import Gradients
from srcli_train.job import Job, Status, Watcher
from srcli_train.misfits import refuse_misfit, refuse_sharing
from srcli_train.networks import build
from srcli_train.ondevice import DeviceMinibatch, minibatches
from srcli_train.optim import Optimizer
from srcli_train.patches import Minibatch, PatchSampler
from srcli_train.peers import Peers
from srcli_train.recorded import recorder
from srcli_train.saving import Saving
from srcli_train.starting import added, earlier, initialise, settled_job, teacher_of, tell_changes
from srcli_train.validation import Validation, held


class Trainer:
    """A network, its optimizer and its place in the recipe.

    Attributes:
        network: in training.
        device: where it is trained.
        update: minibatches done.
    """

    def __init__(self, job: Job, pictures: Pictures, watcher: Watcher) -> None:
        self._watcher, self.device = watcher, find_device(job.device)
        self._peers, self._interrupt = Peers(self.device), Interrupt()
        resumed = self._load(job) if job.resume else None
        self._job = job = settled_job(job, resumed[1] if resumed else None, self.device, watcher.note)
        self._sampler, self._pictures = PatchSampler(pictures, job.recipe), pictures.fingerprint()
        self._minibatches = minibatches(pictures, self._sampler, job.recipe, self.device)
        about = job.validation, job.network.scales, self.device, job.recipe.precision
        self._validation = Validation(*about)
        self._as_trained = Validation(*about, fixed(job.recipe.degradation))
        self.update, self._seconds, self._started = 0, 0.0, time.monotonic()
        self._psnr: dict[int, float] = {}
        self._minutes = job.minutes or 0.0
        self._finished: Path | None = None  # the checkpoint of a run that was resumed at its end
        self._done, self._stop = 0.0, False
        torch.manual_seed(job.recipe.seed)
        self.network = build(job.network)
        refuse_misfit(self.network, job.recipe)
        if self._peers.size > 1:
            refuse_sharing(self.network)
        self._earlier = initialise(self.network, job, self._peers, watcher.note)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._teacher = teacher_of(self.network, job, self.device)
        record = recorder(self.device)
        self._gradients = Gradients(self.network, job.recipe, self.device, self._teacher, record)
        self._optimizer = Optimizer(self.network, job.recipe, record)
        self._mean = _mean_of(self.network, job.recipe.average)
        if resumed:
            self._resume(*resumed)

    def run(self, stop_at: int | None = None) -> Path:
        """Train to the end of the recipe (or to update `stop_at`, or until the time is up).

        A run that was at its end when it was resumed is not touched.

        Returns:
            The checkpoint.

        Raises:
            TrainingError: loss or weights are no longer finite, or another process of the run is gone.
            OutputError: the last checkpoint cannot be written, for minutes.
            KeyboardInterrupt: after a checkpoint was saved.
        """
        if self._finished:
            self._watcher.note(
                f"This run is finished: {self.update} updates, {self._seconds / 60:.1f} minutes."
            )
            return self._finished
        self._stop = False
        with self._interrupt:
            self._loop(min(stop_at or self._job.recipe.updates, self._job.recipe.updates))
            checkpoint = self._saving.insist(self._save)
        if self._stop:
            raise KeyboardInterrupt
        return checkpoint

    def _loop(self, end: int) -> None:
        self._started, self._begun = time.monotonic(), self.update
        self._saving = Saving(self._job.save_minutes, self._watcher.note)
        self._log = CsvLog(self._job.folder / "log.csv", self._job.network.scales, self._watcher.note)
        if self._peers.first:
            self._log.begin(self.update)
        self._done = self._progress()
        self._falls = self._job.recipe.falls(self._done)
        self.network.train()
        with closing(self._minibatches(range(self.update, end))) as coming:
            self._updates(coming, end)

    def _updates(self, coming: Iterator[Minibatch | DeviceMinibatch], end: int) -> None:
        losses, clock = list[Tensor](), time.monotonic()
        for minibatch in coming:
            losses.append(self._step(minibatch))
            self.update += 1
            finished = self.update == end or self._done >= 1 or self._stop
            if (
                self._peers.first
                and not self._stop
                and (self.update % self._job.validate_every == 0 or finished)
            ):
                self._validate()
            due, falls = self._saving.due(), self._begins_to_fall()
            if self.update % self._job.log_every == 0 or finished or due or falls:
                self._check(losses)
                self._report(losses, clock)
                if due:
                    self._saving.attempt(self._save)
                if falls:
                    self._keep_before_fall()
                losses, clock = [], time.monotonic()
            if finished:
                return

    def _step(self, minibatch: Minibatch | DeviceMinibatch) -> Tensor:
        """One update: gradients of this process's share, average, clip, optimizer."""
        share = self._peers.share(len(minibatch.lr))
        lr, hr = held(minibatch.lr[share], self.device), held(minibatch.hr[share], self.device)
        loss = self._gradients(lr, hr, minibatch.scale, side=self.update % len(TRANSFORMS))
        agreed = self._peers.average(
            self.network.parameters(), loss, self._progress(), self._interrupt.wanted, self._optimizer.means
        )
        self._done, self._stop = agreed.progress, agreed.stop
        recorded = minibatch.scale if self._gradients.replays(minibatch.scale) else None
        self._optimizer.step(self._job.recipe.rate(self.update, self._done), recorded)
        if self._mean:
            self._mean.update_parameters(self.network)
        return agreed.loss

    def _validate(self) -> None:
        """On bicubic LR, which all runs share; and on LR as it is trained on, where that is another."""
        network = self._mean.module if self._mean else self.network
        self._psnr = self._validation.scores(network)
        if self._job.recipe.degradation != "bicubic":
            scores = self._as_trained.scores(network)
            told = ", ".join(f"x{scale} {value:.2f} dB" for scale, value in scores.items())
            self._watcher.note(f"update {self.update}: {self._job.recipe.degradation} validation {told}")
        picture = self._as_trained.picture(network)
        if picture is not None:
            self._watcher.picture(self.update, picture)

    def _check(self, losses: list[Tensor]) -> None:
        """Stop at the first loss that is no number, so that no checkpoint is made after it."""
        bad = first_bad(losses)
        if bad is not None:
            raise self._not_finite("loss", self.update - len(losses) + bad)

    def _not_finite(self, what: str, update: int) -> TrainingError:
        """Of an update (0-based)."""
        shown = self._job.folder / f"update-{update + 1}.png" if self._peers.first else None
        return not_finite(what, update, self._sampler(update), shown)

    def _progress(self) -> float:
        """0 at the start, 1 at the end of the updates or of the time, whichever comes first."""
        return self._share(self._elapsed())

    def _share(self, seconds: float) -> float:
        done = self.update / self._job.recipe.updates
        return max(done, seconds / (60 * self._minutes)) if self._minutes else done

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._started

    def _seconds_left(self, elapsed: float) -> float:
        """At the speed of this process: a resumed run may have come from another machine."""
        made = max(1, self.update - self._begun)
        rest = (self._job.recipe.updates - self.update) * (elapsed - self._seconds) / made
        return max(0.0, min(rest, 60 * self._minutes - elapsed) if self._minutes else rest)

    def _report(self, losses: list[Tensor], since: float) -> None:
        if not self._peers.first:
            return
        progress, elapsed = self._progress(), self._elapsed()
        status = Status(
            update=self.update,
            progress=min(progress, 1.0),
            loss=float(torch.stack(losses).mean()),
            rate=self._job.recipe.rate(self.update, progress),
            updates_per_second=len(losses) / (time.monotonic() - since),
            seconds_left=self._seconds_left(elapsed),
            psnr=self._psnr,
        )
        self._log.write(status, elapsed)
        self._watcher.status(status)

    def _load(self, job: Job) -> tuple[Path, Checkpoint]:
        """From the first process's folder, whatever the others' folders hold."""
        return self._peers.ask_first(lambda: runfolder.load(job.folder, self._watcher.note))

    @property
    def precision(self) -> str:
        """That it computes in, "bf16" or "fp32"."""
        return self._job.recipe.precision

    def _begins_to_fall(self) -> bool:
        """Whether the next update is the first with a trapezoid's falling rate."""
        before, self._falls = self._falls, self._job.recipe.falls(self._progress())
        return self._falls and not before

    def _save(self) -> Path:
        checkpoint, folder = self._checkpoint(), self._job.folder
        return runfolder.save(folder, checkpoint) if self._peers.first else folder / runfolder.LAST

    def _keep_before_fall(self) -> None:
        checkpoint = self._checkpoint()
        if self._peers.first:
            runfolder.keep_before_fall(self._job.folder, checkpoint, self._watcher.note)

    def _checkpoint(self) -> Checkpoint:
        trained = _state(self.network)
        if not all_finite(trained):
            raise self._not_finite("network", self.update - 1)
        return Checkpoint(
            network=self._job.network,
            recipe=self._job.recipe,
            weights=_state(self._mean.module) if self._mean else trained,
            trained=trained if self._mean else {},
            teacher=self._teacher.state() if self._teacher else {},
            update=self.update,
            seconds=self._elapsed(),
            minutes=self._minutes,
            optimizer=self._optimizer.state_dict(),
            rng=torch.get_rng_state(),
            facts=added(self._earlier, self._job, self.update, self._elapsed()),
            pictures=self._pictures,
            degradation=numbers(self._job.recipe.degradation),
            quality={str(s): {"validation": round(v, 3)} for s, v in self._psnr.items()},
        )

    def _resume(self, path: Path, checkpoint: Checkpoint) -> None:
        tell_changes(checkpoint, self._pictures, self._watcher.note)
        self.network.load_state_dict(checkpoint.trained or checkpoint.weights)
        if self._mean:
            self._mean.module.load_state_dict(checkpoint.weights)
            self._mean.n_averaged.fill_(checkpoint.update)
        if self._teacher:
            self._teacher.load_state(checkpoint.teacher)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.rng is not None:
            torch.set_rng_state(checkpoint.rng)
        self.update, self._seconds = checkpoint.update, checkpoint.seconds
        self._minutes = agreed_minutes(self._job.minutes, checkpoint.minutes, self._watcher.note)
        self._finished = path if self._share(self._seconds) >= 1 else None
        self._earlier = earlier(checkpoint)
        self._psnr = {int(s): q["validation"] for s, q in checkpoint.quality.items()}


def _mean_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """A second network that follows the mean of the first one's weights."""
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: values.cpu() for name, values in network.state_dict().items()}
