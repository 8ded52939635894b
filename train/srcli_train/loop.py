"""The training loop, top to bottom: data, network, update, validation, checkpoint."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srcli.errors import OutputError, TrainingError, UsageError
from srcli.media.images import Picture, write
from srcli.spec import TrainingFacts
from srcli_train import runfolder
from srcli_train.budget import agreed_minutes
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.csvlog import CsvLog
from srcli_train.data import Pictures
from srcli_train.degradations import fixed
from srcli_train.device import find_device
from srcli_train.gradients import Gradients
from srcli_train.init import icnr, start_from
from srcli_train.interrupt import Interrupt
from srcli_train.job import Job, Status, Watcher
from srcli_train.mixing import blended
from srcli_train.networks import build
from srcli_train.ondevice import DeviceMinibatch, minibatches
from srcli_train.optim import Optimizer
from srcli_train.patches import Minibatch, PatchSampler
from srcli_train.peers import Peers
from srcli_train.revival import revive
from srcli_train.validation import Validation, held

_WATCHED = 24  # minibatches on which hidden units are watched


class Trainer:
    """A network, its optimizer and its place in the recipe.

    Attributes:
        network: in training.
        device: where it is trained.
        update: minibatches done.
    """

    def __init__(self, job: Job, pictures: Pictures, watcher: Watcher) -> None:
        self._job, self._watcher = job, watcher
        self.device = find_device(job.device)
        self._peers, self._interrupt = Peers(self.device), Interrupt()
        self._sampler, self._pictures = PatchSampler(pictures, job.recipe), pictures.fingerprint()
        self._minibatches = minibatches(pictures, self._sampler, job.recipe, self.device)
        about = job.validation, job.network.scales, self.device, job.recipe.precision
        self._validation = Validation(*about)
        self._as_trained = Validation(*about, fixed(job.recipe.degradation))
        self.update, self._seconds, self._started = 0, 0.0, time.monotonic()
        self._psnr: dict[int, float] = {}
        self._earlier = TrainingFacts()  # what the starting weights had behind them
        self._minutes = job.minutes or 0.0
        self._finished: Path | None = None  # the checkpoint of a run that was resumed at its end
        self._done, self._stop = 0.0, False
        torch.manual_seed(job.recipe.seed)
        self.network = build(job.network)
        self._initialise()
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._gradients = Gradients(self.network, job.recipe, self.device)
        self._optimizer = Optimizer(self.network, job.recipe)
        self._mean = _mean_of(self.network, job.recipe.average)
        if job.resume:
            self._resume()
        else:
            self._revive()

    def run(self, stop_at: int | None = None) -> Path:
        """Train to the end of the recipe (or to update `stop_at`, or until the time is up).

        A run that was at its end when it was resumed is not touched.

        Returns:
            The checkpoint.

        Raises:
            TrainingError: loss or weights are no longer finite, or another process of the run is gone.
            OutputError: the last checkpoint cannot be written.
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
            checkpoint = self._save()
        if self._stop:
            raise KeyboardInterrupt
        return checkpoint

    def _loop(self, end: int) -> None:
        self._started = time.monotonic()
        saved, losses, clock = time.monotonic(), list[Tensor](), time.monotonic()
        self._log = CsvLog(self._job.folder / "log.csv", self._job.network.scales, self._watcher.note)
        if self._peers.first:
            self._log.begin(self.update)
        self._done = self._progress()
        self.network.train()
        for minibatch in self._minibatches(range(self.update, end)):
            losses.append(self._step(minibatch))
            self.update += 1
            if self._job.recipe.revive_every and self.update % self._job.recipe.revive_every == 0:
                self._revive()
            finished = self.update == end or self._done >= 1 or self._stop
            if (
                self._peers.first
                and not self._stop
                and (self.update % self._job.validate_every == 0 or finished)
            ):
                self._validate()
            due = time.monotonic() - saved > self._job.save_minutes * 60
            if self.update % self._job.log_every == 0 or finished or due:
                self._check(losses)
                self._report(losses, clock)
                if due and self._saved():
                    saved = time.monotonic()
                losses, clock = [], time.monotonic()
            if finished:
                return

    def _step(self, minibatch: Minibatch | DeviceMinibatch) -> Tensor:
        """One update: gradients of this process's share, average, clip, optimizer."""
        if self._job.recipe.mixup:
            minibatch = blended(minibatch, self._job.recipe, self.update)
        share = self._peers.share(len(minibatch.lr))
        lr, hr = held(minibatch.lr[share], self.device), held(minibatch.hr[share], self.device)
        loss = self._gradients(lr, hr, minibatch.scale)
        agreed = self._peers.average(
            self.network.parameters(), loss, self._progress(), self._interrupt.wanted, self._optimizer.means
        )
        self._done, self._stop = agreed.progress, agreed.stop
        self._optimizer.step(self._job.recipe.rate(self.update, self._done))
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
        bad = torch.isfinite(torch.stack(losses)).logical_not().nonzero()
        if len(bad):
            self._refuse("loss", self.update - len(losses) + int(bad[0]))

    def _refuse(self, what: str, update: int) -> None:
        """End the run at an update (0-based), with its patches as a picture."""
        minibatch = self._sampler(update)
        shown = self._job.folder / f"update-{update + 1}.png"
        if self._peers.first:
            with suppress(OutputError):  # the disk may be full; the reason below matters more
                write(shown, Picture(np.concatenate(list(minibatch.lr), 1)), format="png", quality=None)
        raise TrainingError(
            f"The {what} is not finite at update {update + 1} (x{minibatch.scale}); patches: {shown}.",
            "Lower the learning rate, or train in fp32; --resume goes on from the last good checkpoint.",
        )

    def _progress(self) -> float:
        """0 at the start, 1 at the end of the updates or of the time, whichever comes first."""
        return self._share(self._elapsed())

    def _share(self, seconds: float) -> float:
        done = self.update / self._job.recipe.updates
        return max(done, seconds / (60 * self._minutes)) if self._minutes else done

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._started

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
            seconds_left=max(elapsed * (1 - progress) / progress, 0),
            psnr=self._psnr,
        )
        self._log.write(status, elapsed)
        self._watcher.status(status)

    def _initialise(self) -> None:
        if self._job.recipe.icnr:
            icnr(self.network)
        if self._job.init and not self._job.resume:
            start = load_checkpoint(self._job.init)
            kept, self._earlier = start_from(self.network, start), start.facts
            self._watcher.note(
                f"Started from {self._job.init}; freshly initialised: {', '.join(kept) or 'nothing'}."
            )

    def _revive(self) -> None:
        """As the recipe says; on a few of the next minibatches, the same in every process."""
        recipe = self._job.recipe
        if not recipe.revive:
            return
        drawn = (self._sampler(self.update + n) for n in range(_WATCHED))
        count = revive(self.network, drawn, recipe.revive, recipe.seed + self.update)
        self._peers.agree(self.network.state_dict().values())
        self._watcher.note(f"Update {self.update}: {count} hidden units that hardly fire start anew.")

    def _saved(self) -> bool:
        """Save in the middle of a run; if the disk refuses, say so, and training goes on."""
        try:
            self._save()
        except OutputError as error:
            self._watcher.note(f"{error.message} Training goes on, and tries again soon.")
            return False
        return True

    def _save(self) -> Path:
        trained = _state(self.network)
        weights = _state(self._mean.module) if self._mean else trained
        if not all(torch.isfinite(w).all() for w in trained.values() if w.is_floating_point()):
            self._refuse("network", self.update - 1)
        if not self._peers.first:
            return self._job.folder / runfolder.LAST
        facts = replace(
            self._job.facts,
            recipe=self._job.recipe.name,
            updates=self._earlier.updates + self.update,
            hours=round(self._earlier.hours + self._elapsed() / 3600, 3),
        )
        checkpoint = Checkpoint(
            network=self._job.network,
            recipe=self._job.recipe,
            weights=weights,
            trained=trained if self._mean else {},
            update=self.update,
            seconds=self._elapsed(),
            minutes=self._minutes,
            optimizer=self._optimizer.state_dict(),
            rng=torch.get_rng_state(),
            facts=facts,
            pictures=self._pictures,
            quality={str(s): {"validation": round(v, 3)} for s, v in self._psnr.items()},
        )
        return runfolder.save(self._job.folder, checkpoint)

    def _resume(self) -> None:
        path, checkpoint = runfolder.load(self._job.folder, self._watcher.note)
        if checkpoint.network != self._job.network or checkpoint.recipe != self._job.recipe:
            raise UsageError(
                f"The run in {self._job.folder} was made with another network or recipe.",
                "Give the same options as before, or another folder with -o.",
            )
        if checkpoint.pictures not in ("", self._pictures):
            self._watcher.note("These are not the training pictures that the run began with.")
        self.network.load_state_dict(checkpoint.trained or checkpoint.weights)
        if self._mean:
            self._mean.module.load_state_dict(checkpoint.weights)
            self._mean.n_averaged.fill_(checkpoint.update)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.rng is not None:
            torch.set_rng_state(checkpoint.rng)
        self.update, self._seconds = checkpoint.update, checkpoint.seconds
        self._minutes = agreed_minutes(self._job.minutes, checkpoint.minutes, self._watcher.note)
        self._finished = path if self._share(self._seconds) >= 1 else None
        facts = checkpoint.facts
        updates, hours = facts.updates - self.update, facts.hours - self._seconds / 3600
        self._earlier = replace(facts, updates=max(0, updates), hours=max(0.0, hours))
        self._psnr = {int(s): q["validation"] for s, q in checkpoint.quality.items()}


def _mean_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """A second network that follows the mean of the first one's weights."""
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: values.cpu() for name, values in network.state_dict().items()}
