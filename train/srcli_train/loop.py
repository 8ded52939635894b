"""The training loop: data, forward, loss, backward, step, log, validate, save."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srcli.errors import Interrupt, TrainingError
from srcli_train import checkpoint as files
from srcli_train.checkpoint import Checkpoint, SaveSchedule
from srcli_train.cuda_graph import GraphedGradients, graph_capture
from srcli_train.data import Pictures, Pixels
from srcli_train.degradations import degrade_with, parameters
from srcli_train.device import autocast, find_device
from srcli_train.job import Job, check_for_ranks, check_recipe
from srcli_train.log import CsvLog, Status, Watcher
from srcli_train.networks import build
from srcli_train.optim import Optimizer
from srcli_train.patches import DeviceMinibatch, Minibatch, PatchSampler, minibatches
from srcli_train.ranks import Agreed, Ranks
from srcli_train.recipes import Recipe
from srcli_train.start import (
    added_facts,
    earlier_facts,
    facts_of,
    initialise,
    log_changes,
    resumed_minutes,
    with_precision,
)
from srcli_train.validation import Validation, all_finite, first_bad, not_finite, to_batch, to_device

_log = logging.getLogger(__name__)


class Trainer:
    """A network, its optimizer and its place in the recipe.

    Attributes:
        network: in training.
        device: where it is trained.
        update: minibatches done.
    """

    def __init__(
        self, job: Job, pictures: Pictures, validation: tuple[Pixels, ...], watcher: Watcher
    ) -> None:
        """Build everything; with `job.resume`, as the run's last checkpoint left it.

        Args:
            pictures: to train on.
            validation: HR images, (H, W, 3) uint8, never trained on.
        """
        self._watcher, self.device = watcher, find_device(job.device)
        self._ranks, self._interrupt = Ranks(self.device), Interrupt()
        resumed = self._ranks.from_first(lambda: files.load(job.folder)) if job.resume else None
        self._job = job = with_precision(job, resumed[1] if resumed else None, self.device)
        self._facts = facts_of(job, self.device)
        self._sampler, self._pictures = PatchSampler(pictures, job.recipe), pictures.fingerprint()
        self._minibatches = minibatches(pictures, self._sampler, job.recipe, self.device)
        about = validation, job.network.scales, self.device, job.recipe.precision
        self._validation = Validation(*about)
        self._as_trained = Validation(*about, degrade_with(job.recipe.degradation))
        self._psnr: dict[int, float] = {}
        self.update, self._clock = 0, Clock(job.recipe.updates, job.minutes or 0.0)
        self._finished: Path | None = None  # the checkpoint of a run that was resumed at its end
        torch.manual_seed(job.recipe.seed)
        self.network = build(job.network)
        check_recipe(self.network, job.recipe)
        if self._ranks.size > 1:
            check_for_ranks(self.network)
        self._earlier = initialise(self.network, job, self._ranks)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        capture = graph_capture(self.device)
        compute = partial(self.forward_backward, self.network, job.recipe, self.device)
        self._gradients = GraphedGradients(self.network, compute, capture)
        self._optimizer = Optimizer(self.network, job.recipe, capture)
        self._ema = _ema_of(self.network, job.recipe.ema)
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
            minutes = self._clock.before / 60
            _log.info("This run is finished: %d updates, %.1f minutes.", self.update, minutes)
            return self._finished
        with self._interrupt:
            saves = SaveSchedule(self._job.save_minutes)
            stopped = self._train(min(stop_at or self._job.recipe.updates, self._job.recipe.updates), saves)
            checkpoint = saves.insist(self._save)
        if stopped:
            raise KeyboardInterrupt
        return checkpoint

    def _train(self, end: int, saves: SaveSchedule) -> bool:
        """Updates until `end`; whether they ended before, as somebody asked to stop."""
        job, recipe, first = self._job, self._job.recipe, self._ranks.first
        log = CsvLog(job.folder / "log.csv", job.network.scales)
        if first:
            log.begin(self.update)
        self._clock.start(self.update)
        falls = recipe.falls(self._clock.progress(self.update))
        losses, since = list[Tensor](), time.monotonic()
        self.network.train()
        with closing(self._minibatches(range(self.update, end))) as coming:
            for minibatch in coming:
                agreed = self._step(minibatch)  # data, forward, loss, backward, step
                losses.append(agreed.loss)
                self.update += 1
                ends = self.update == end or agreed.progress >= 1 or agreed.stop

                if first and not agreed.stop and (self.update % job.validate_every == 0 or ends):
                    self._validate()

                fell, falls = falls, recipe.falls(self._clock.progress(self.update))
                begins_to_fall, save_due = falls and not fell, saves.due()
                if self.update % job.log_every == 0 or ends or save_due or begins_to_fall:
                    self._check_finite(losses)  # before anything is saved
                    if first:
                        self._report(log, losses, since)
                    if save_due:
                        saves.attempt(self._save)
                    if begins_to_fall:
                        self._save_before_fall()
                    losses, since = [], time.monotonic()

                if ends:
                    return agreed.stop
        return False

    def _step(self, minibatch: Minibatch | DeviceMinibatch) -> Agreed:
        """One update: this rank's share of the data, forward_backward, average over ranks, step, EMA."""
        recipe, scale, share = self._job.recipe, minibatch.scale, self._ranks.share(len(minibatch.lr))
        lr, hr = to_device(minibatch.lr[share], self.device), to_device(minibatch.hr[share], self.device)

        loss = self._gradients(lr, hr, scale)  # forward, loss, backward; on a GPU as a CUDA graph

        progress, stop = self._clock.progress(self.update), self._interrupt.wanted
        weights = self.network.parameters()
        agreed = self._ranks.average(weights, loss, progress, stop, self._optimizer.means)
        self._optimizer.step(recipe.rate(self.update, agreed.progress), self._gradients.graph_of(scale))
        if self._ema:
            self._ema.update_parameters(self.network)
        return agreed

    @staticmethod
    def forward_backward(
        network: nn.Module, recipe: Recipe, device: torch.device, lr: Tensor, hr: Tensor, scale: int
    ) -> Tensor:
        """Forward, loss and backward of one minibatch; leaves the gradients in the parameters that took part.

        Args:
            network: in training, on `device`.
            recipe: says loss and precision.
            lr, hr: (N, H, W, 3) and (N, scale*H, scale*W, 3) uint8 on the device.

        Returns:
            L1 or L2 on 0-255 (paper, section 4.2), a scalar without history.
        """
        with _fastest_kernels():
            with autocast(device, recipe.precision):
                sr = network(to_batch(lr, device), scale).float()
            error = (sr - to_batch(hr, device)) * 255
            loss: Tensor = error.abs().mean() if recipe.loss == "l1" else error.square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _validate(self) -> None:
        """On bicubic LR, which all runs share; and on LR as it is trained on, where that is another."""
        network = self._ema.module if self._ema else self.network
        self._psnr, degradation = self._validation.scores(network), self._job.recipe.degradation
        if degradation != "bicubic":
            scores = self._as_trained.scores(network)
            text = ", ".join(f"x{scale} {value:.2f} dB" for scale, value in scores.items())
            _log.info("update %d: %s validation %s", self.update, degradation, text)
        picture = self._as_trained.picture(network)
        if picture is not None:
            self._watcher.picture(self.update, picture)

    def _check_finite(self, losses: list[Tensor]) -> None:
        """Stop at the first loss that is not finite, so that no checkpoint is made after it."""
        bad = first_bad(losses)
        if bad is not None:
            raise self._not_finite("loss", self.update - len(losses) + bad)

    def _not_finite(self, what: str, update: int) -> TrainingError:
        """Of an update (0-based)."""
        shown = self._job.folder / f"update-{update + 1}.png" if self._ranks.first else None
        return not_finite(what, update, self._sampler(update), shown)

    def _report(self, log: CsvLog, losses: list[Tensor], since: float) -> None:
        progress, elapsed = self._clock.progress(self.update), self._clock.elapsed()
        status = Status(
            update=self.update,
            progress=min(progress, 1.0),
            loss=float(torch.stack(losses).mean()),
            rate=self._job.recipe.rate(self.update, progress),
            updates_per_second=len(losses) / (time.monotonic() - since),
            seconds_left=self._clock.seconds_left(self.update),
            psnr=self._psnr,
        )
        log.write(status, elapsed)
        self._watcher.status(status)

    @property
    def precision(self) -> str:
        """That it computes in, "bf16" or "fp32"."""
        return self._job.recipe.precision

    def _save(self) -> Path:
        checkpoint, folder = self._checkpoint(), self._job.folder
        return files.save(folder, checkpoint) if self._ranks.first else folder / files.LAST

    def _save_before_fall(self) -> None:
        checkpoint = self._checkpoint()
        if self._ranks.first:
            files.save_before_fall(self._job.folder, checkpoint)

    def _checkpoint(self) -> Checkpoint:
        trained, recipe, seconds = _state(self.network), self._job.recipe, self._clock.elapsed()
        if not all_finite(trained):
            raise self._not_finite("network", self.update - 1)
        return Checkpoint(
            network=self._job.network,
            recipe=recipe,
            weights=_state(self._ema.module) if self._ema else trained,
            trained=trained if self._ema else {},
            update=self.update,
            seconds=seconds,
            minutes=self._clock.minutes,
            optimizer=self._optimizer.state_dict(),
            rng=torch.get_rng_state(),
            facts=added_facts(self._earlier, self._facts, recipe.name, self.update, seconds),
            pictures=self._pictures,
            degradation=parameters(recipe.degradation),
            quality={str(s): {"validation": round(v, 3)} for s, v in self._psnr.items()},
        )

    def _resume(self, path: Path, checkpoint: Checkpoint) -> None:
        log_changes(checkpoint, self._pictures)
        self.network.load_state_dict(checkpoint.trained or checkpoint.weights)
        if self._ema:
            self._ema.module.load_state_dict(checkpoint.weights)
            self._ema.n_averaged.fill_(checkpoint.update)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.rng is not None:
            torch.set_rng_state(checkpoint.rng)
        self.update = checkpoint.update
        minutes = resumed_minutes(self._job.minutes, checkpoint.minutes)
        self._clock = Clock(self._job.recipe.updates, minutes, checkpoint.seconds)
        self._finished = path if self._clock.progress_at(self.update, checkpoint.seconds) >= 1 else None
        self._earlier = earlier_facts(checkpoint)
        self._psnr = {int(s): q["validation"] for s, q in checkpoint.quality.items()}


class Clock:
    """The time of a run and its share of what the recipe or the time budget allows.

    Attributes:
        updates: of the recipe.
        minutes: the budget; 0: none.
        before: seconds of training before this process resumed the run.
    """

    def __init__(self, updates: int, minutes: float, before: float = 0.0) -> None:
        self.updates, self.minutes, self.before = updates, minutes, before
        self.start(0)

    def start(self, update: int) -> None:
        """This process begins to train at this update."""
        self._started, self._begun = time.monotonic(), update

    def elapsed(self) -> float:
        """Seconds of training in all."""
        return self.before + time.monotonic() - self._started

    def progress(self, update: int) -> float:
        """0 at the start, 1 at the end of the updates or of the time, whichever comes first."""
        return self.progress_at(update, self.elapsed())

    def progress_at(self, update: int, seconds: float) -> float:
        """`progress` after so many seconds of training."""
        done = update / self.updates
        return max(done, seconds / (60 * self.minutes)) if self.minutes else done

    def seconds_left(self, update: int) -> float:
        """At the speed of this process: a resumed run may have come from another machine."""
        elapsed, made = self.elapsed(), max(1, update - self._begun)
        rest = (self.updates - update) * (elapsed - self.before) / made
        return max(0.0, min(rest, 60 * self.minutes - elapsed) if self.minutes else rest)


def _fastest_kernels() -> AbstractContextManager[None]:
    """cuDNN tries its kernels on a shape once; only here, where shapes repeat for hours."""
    flags: Callable[..., AbstractContextManager[None]] = torch.backends.cudnn.flags
    return flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)


def _ema_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """A second network that follows the EMA of the first one's weights; None for a decay of 0."""
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: values.cpu() for name, values in network.state_dict().items()}
