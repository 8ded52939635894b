"""The training loop, top to bottom: data, network, update, validation, checkpoint."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import TrainingError, UsageError
from srcli.metrics import psnr_y
from srcli.resize import downscale, modcrop
from srcli.spec import TrainingFacts
from srcli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from srcli_train.csvlog import CsvLog
from srcli_train.data import Minibatch, PatchSampler, Pictures, prefetched
from srcli_train.init import icnr, start_from
from srcli_train.interrupt import Interrupt
from srcli_train.networks import NetworkSpec, build
from srcli_train.optim import Optimizer
from srcli_train.peers import Peers
from srcli_train.recipes import Recipe

Pixels = NDArray[np.uint8]
LAST = "last.pt"
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    Attributes:
        network: what is trained.
        recipe: how.
        folder: checkpoint, CSV log and TensorBoard events go here.
        validation: HR images, (H, W, 3) uint8, never trained on.
        device: "cpu", "cuda", "cuda:1".
        minutes: wall-clock budget; the schedule then runs on time instead of updates. 0: no limit.
        init: checkpoint to take starting weights from.
        resume: go on from the run folder's last checkpoint.
        log_every, validate_every: in updates. save_minutes: between checkpoints.
        facts: kept in the checkpoint for the model card.
    """

    network: NetworkSpec
    recipe: Recipe
    folder: Path
    validation: tuple[Pixels, ...] = ()
    device: str = "cpu"
    minutes: float = 0.0
    init: Path | None = None
    resume: bool = False
    log_every: int = 50
    validate_every: int = 1000
    save_minutes: float = 5.0
    facts: TrainingFacts = field(default_factory=TrainingFacts)


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is: updates, share of the run 0-1, mean loss since the last one, rates, PSNR by scale."""

    update: int
    progress: float
    loss: float
    rate: float
    updates_per_second: float
    seconds_left: float
    psnr: dict[int, float]


class Watcher(Protocol):
    """Whoever shows a run to the user."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def status(self, status: Status) -> None:
        """Progress, every `log_every` updates."""

    def picture(self, update: int, image: Pixels) -> None:
        """A validation picture (H, W, 3): LR bicubic, SR and HR side by side."""


class Trainer:
    """A network, its optimizer and its place in the recipe."""

    def __init__(self, job: Job, pictures: Pictures, watcher: Watcher) -> None:
        self._job, self._watcher = job, watcher
        self._device = _device(job.device)
        self._peers = Peers(self._device)
        self._sampler, self._pictures = PatchSampler(pictures, job.recipe), pictures.fingerprint()
        self.update, self._seconds, self._started = 0, 0.0, time.monotonic()
        self._psnr: dict[int, float] = {}
        self._done = 0.0
        torch.manual_seed(job.recipe.seed)
        self.network = build(job.network)
        self._initialise()
        self.network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = Optimizer(self.network, job.recipe)
        if job.resume:
            self._resume()

    def run(self, stop_at: int | None = None) -> Path:
        """Train to the end of the recipe (or to update `stop_at`, or until the time is up).

        Returns:
            The checkpoint.

        Raises:
            TrainingError: the loss is no longer finite.
            KeyboardInterrupt: after a checkpoint was saved.
        """
        with Interrupt() as interrupt:
            try:
                self._loop(min(stop_at or self._job.recipe.updates, self._job.recipe.updates), interrupt)
            except KeyboardInterrupt:
                if interrupt.wanted:  # between two updates, so that resuming stays exact
                    self._save()
                raise
            return self._save()

    def _loop(self, end: int, interrupt: Interrupt) -> None:
        self._started = time.monotonic()
        saved, losses, clock = time.monotonic(), list[Tensor](), time.monotonic()
        log = (
            CsvLog(self._job.folder / "log.csv", self._job.network.scales, self.update)
            if self._peers.first
            else None
        )
        self._done = self._progress()
        self.network.train()
        for minibatch in prefetched(self._sampler, range(self.update, end)):
            losses.append(self._step(minibatch))
            self.update += 1
            finished = self.update == end or self._done >= 1
            if self._peers.first and (self.update % self._job.validate_every == 0 or finished):
                self._psnr = self.validate()
            if self.update % self._job.log_every == 0 or finished:
                speed = len(losses) / (time.monotonic() - clock)
                loss = _mean(losses, self.update)
                if log:
                    self._report(log, loss, speed)
                if time.monotonic() - saved > self._job.save_minutes * 60:
                    self._save()  # only here, where the loss is known to be finite
                    saved = time.monotonic()
                losses, clock = [], time.monotonic()
            if finished:
                return
            interrupt.check()

    def _step(self, minibatch: Minibatch) -> Tensor:
        """One update: forward in bf16, loss in fp32 on 0-255, backward, average, clip, optimizer."""
        share = self._peers.share(len(minibatch.lr))
        lr, hr = _to_device(minibatch.lr[share], self._device), _to_device(minibatch.hr[share], self._device)
        with torch.autocast(self._device.type, _DTYPES[self._job.recipe.precision], self._lowered):
            sr = self.network(lr, minibatch.scale)
        error = (sr.float() - hr) * 255
        loss = error.abs().mean() if self._job.recipe.loss == "l1" else error.square().mean()
        loss.backward()
        loss, self._done = self._peers.average(self.network.parameters(), loss.detach(), self._progress())
        self._optimizer.step(self._job.recipe.rate(self.update, self._done))
        return loss

    @property
    def _lowered(self) -> bool:
        return self._job.recipe.precision != "fp32"

    @torch.no_grad()
    def validate(self) -> dict[int, float]:
        """Mean PSNR in dB (Y, shave = scale) over the validation images, by scale; shows one picture."""
        self.network.eval()
        scores = {s: [psnr_y(*self._pair(hr, s), s) for hr in self._job.validation] for s in self._scales}
        if self._job.validation:
            self._watcher.picture(self.update, self._shown())
        self.network.train()
        return {s: float(np.mean(values)) for s, values in scores.items() if values}

    @property
    def _scales(self) -> tuple[int, ...]:
        return self._job.network.scales

    def _pair(self, hr: Pixels, scale: int) -> tuple[Pixels, Pixels]:
        hr = np.asarray(modcrop(hr, scale), np.uint8)
        return self.upscale(np.asarray(downscale(hr, scale), np.uint8), scale), hr

    def upscale(self, lr: Pixels, scale: int) -> Pixels:
        """(H, W, 3) uint8 -> (scale*H, scale*W, 3) uint8, whole image, in the recipe's precision."""
        with (
            torch.no_grad(),
            torch.autocast(self._device.type, _DTYPES[self._job.recipe.precision], self._lowered),
        ):
            sr = self.network(_to_device(lr[None], self._device), scale)[0]
        return np.asarray((sr.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy(), np.uint8)

    def _shown(self) -> Pixels:
        scale = self._scales[-1]
        sr, hr = self._pair(self._job.validation[0], scale)
        low = downscale(hr, scale).repeat(scale, 0).repeat(scale, 1)
        return np.asarray(np.concatenate([low, sr, hr], 1), np.uint8)

    def _progress(self) -> float:
        """0 at the start, 1 at the end of the updates or of the time, whichever comes first."""
        done = self.update / self._job.recipe.updates
        return max(done, self._elapsed() / (60 * self._job.minutes)) if self._job.minutes else done

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._started

    def _report(self, log: CsvLog, loss: float, speed: float) -> None:
        progress, elapsed = self._progress(), self._elapsed()
        left = elapsed * (1 - progress) / progress
        rate = self._job.recipe.rate(self.update, progress)
        status = Status(self.update, min(progress, 1.0), loss, rate, speed, max(left, 0), self._psnr)
        log.write(status, elapsed)
        self._watcher.status(status)

    def _initialise(self) -> None:
        if self._job.recipe.icnr:
            icnr(self.network)
        if self._job.init and not self._job.resume:
            kept = start_from(self.network, load_checkpoint(self._job.init))
            self._watcher.note(
                f"Started from {self._job.init}; freshly initialised: {', '.join(kept) or 'nothing'}."
            )

    def _save(self) -> Path:
        if not self._peers.first:
            return self._job.folder / LAST
        facts = replace(
            self._job.facts,
            recipe=self._job.recipe.name,
            updates=self.update,
            hours=round(self._elapsed() / 3600, 3),
        )
        checkpoint = Checkpoint(
            network=self._job.network,
            recipe=self._job.recipe,
            weights={k: v.cpu() for k, v in self.network.state_dict().items()},
            update=self.update,
            seconds=self._elapsed(),
            optimizer=self._optimizer.state_dict(),
            rng=torch.get_rng_state(),
            facts=facts,
            pictures=self._pictures,
            quality={str(s): {"validation": round(v, 3)} for s, v in self._psnr.items()},
        )
        save_checkpoint(self._job.folder / LAST, checkpoint)
        return self._job.folder / LAST

    def _resume(self) -> None:
        checkpoint = load_checkpoint(self._job.folder / LAST)
        if checkpoint.network != self._job.network or checkpoint.recipe != self._job.recipe:
            raise UsageError(
                f"{self._job.folder / LAST} was made with another network or recipe.",
                "Give the same options as before, or another folder with -o.",
            )
        if checkpoint.pictures not in ("", self._pictures):
            self._watcher.note("These are not the training pictures that the run began with.")
        self.network.load_state_dict(checkpoint.weights)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.rng is not None:
            torch.set_rng_state(checkpoint.rng)
        self.update, self._seconds = checkpoint.update, checkpoint.seconds
        self._psnr = {int(s): q["validation"] for s, q in checkpoint.quality.items()}


def _to_device(pixels: Pixels, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 0-1, channels_last, without a copy in between."""
    batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(device, non_blocking=True)
    return batch.permute(0, 3, 1, 2).float().div_(255)


def _mean(losses: list[Tensor], update: int) -> float:
    mean = float(torch.stack(losses).mean())
    if not np.isfinite(mean):
        raise TrainingError(
            f"The loss is not finite after update {update}.", "Lower the learning rate, or train in fp32."
        )
    return mean


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"Device {name!r} is not known.", "Use cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"Training on {name!r} is not supported.", "Use cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"There is no device {name!r} here.", "Train with --device cpu, or mend the driver.")
    return device
