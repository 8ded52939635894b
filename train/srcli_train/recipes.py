"""Training recipes: every number of a run is one field here, and each can be changed by name."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from srcli.errors import UsageError
from srcli_train.degradations import DEGRADATIONS

_MODULES = ("head", "pre_process", "body", "blocks", "last", "upsampler", "tail")
"""Top-level modules with convolutions, of all families."""


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} {value!r} is not known.", f"Choose one of: {', '.join(allowed)}.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained. The defaults are the paper's (section 4.2).

    Attributes:
        updates: minibatches in all.
        batch: patches a minibatch.
        patch: side of an LR patch in pixels.
        candidates: places drawn for each patch, of which the most detailed is taken; 1: no choice.
        degradation: how LR is made from HR: "bicubic", "unknown" (a blur kernel an image, decimation)
            "photo" (blur, resampling, noise and JPEG, drawn anew for every patch) or "film" (the same, or
            H.264 and H.265).
        drawings: share of the patches that are drawings with hard edges or smooth ones (text, lines,
            interfaces, pixel art), made by code at LR's and HR's size; 0-1. Not with "bicubic".
        loss: "l1" or "l2", on 0..255 pixel values.
        optimizer: "adam" for every parameter, or "muon" for the convolution weights of the modules
            in `muon_modules` and Adam for the rest.
        lr: Adam's learning rate.
        betas, eps: Adam's other constants.
        muon_lr: Muon's learning rate (orthogonalised updates, times sqrt(max(1, rows / columns))).
        muon_momentum: Muon's Nesterov momentum.
        muon_centred: train Muon's weights as if each convolution saw its input less its mean.
        muon_modules: top-level modules whose 4-d weights Muon trains.
        schedule: "step": halved every `halve_every` updates; "cosine": to zero at the end; "trapezoid":
            constant, then linearly to zero. The run folder keeps `before-fall.pt`, from which a longer run
            can start.
        halve_every: updates between halvings.
        fall: share of a trapezoid's run in which the rate falls, 0-1.
        warmup: updates over which the rate rises linearly from zero; 0 for none.
        clip: largest gradient norm; 0 for no clipping.
        ema: decay of the exponential moving average (EMA) of the weights, which is then what is validated
            and kept, e.g. 0.999; 0 for none.
        flip, rotate: random horizontal flips and 90° turns.
        icnr: start each upsampler so that it repeats pixels (no checkerboard at the start).
        precision: "bf16" (autocast), "fp32", or "auto": bf16 where the device multiplies it natively.
        seed: decides initialisation and every patch drawn.
    """

    name: str = "paper"
    updates: int = 300_000
    batch: int = 16
    patch: int = 48
    candidates: int = 1
    degradation: str = "bicubic"
    drawings: float = 0.0
    loss: str = "l1"
    optimizer: str = "adam"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    muon_lr: float = 0.005
    muon_momentum: float = 0.95
    muon_centred: bool = False
    muon_modules: tuple[str, ...] = ("body", "pre_process", "blocks", "upsampler")
    schedule: str = "step"
    halve_every: int = 200_000
    fall: float = 0.2
    warmup: int = 0
    clip: float = 0.0
    ema: float = 0.0
    flip: bool = True
    rotate: bool = True
    icnr: bool = False
    precision: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        _one_of("degradation", self.degradation, tuple(DEGRADATIONS))
        _one_of("loss", self.loss, ("l1", "l2"))
        _one_of("optimizer", self.optimizer, ("adam", "muon"))
        _one_of("schedule", self.schedule, ("step", "cosine", "trapezoid"))
        _one_of("precision", self.precision, ("auto", "bf16", "fp32"))
        if min(self.updates, self.batch, self.patch, self.candidates, self.halve_every) < 1:
            raise UsageError("Updates, batch, patch, candidates and halve_every start at 1.")
        if not all(0 < rate < math.inf for rate in (self.lr, self.muon_lr)):
            raise UsageError("Learning rates are numbers above 0.")
        if min(self.warmup, self.clip) < 0 or self.eps <= 0:
            raise UsageError("Warm-up and clip are 0 or more, eps is above 0.")
        decays = (*self.betas, self.muon_momentum)
        if len(self.betas) != 2 or not all(0 <= decay < 1 for decay in decays):
            raise UsageError("There are two betas; they and the momentum are at least 0 and below 1.")
        if not 0 < self.fall <= 1:
            raise UsageError("The share `fall` is above 0 and at most 1.")
        if not 0 <= self.drawings <= 1:
            raise UsageError("The share `drawings` is at least 0 and at most 1.")
        if not 0 <= self.ema < 1:
            raise UsageError("The decay `ema` is at least 0 and below 1.")
        if self.seed < 0:
            raise UsageError("The seed is a whole number, 0 or more.")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """Refuse fields of which one makes another useless or wrong."""
        hint = "Leave one of them out."
        if self.drawings and self.degradation == "bicubic":
            raise UsageError("`drawings` goes with the degradations photo, film and unknown only.", hint)
        if self.muon_centred and self.optimizer != "muon":
            raise UsageError(f"`muon_centred` goes with muon only, not with {self.optimizer!r}.", hint)
        if self.optimizer == "muon" and not set(self.muon_modules) <= set(_MODULES):
            wrong = ", ".join(str(name) for name in self.muon_modules if name not in _MODULES)
            raise UsageError(f"No network has the modules {wrong}.", f"There are: {', '.join(_MODULES)}.")

    def falls(self, progress: float) -> bool:
        """Whether a trapezoid's rate falls at `progress` 0-1 of the run."""
        return self.schedule == "trapezoid" and 1 - progress < self.fall

    def rate(self, update: int, progress: float) -> float:
        """The factor on both learning rates for one update (0-based), at `progress` 0-1 of the run."""
        warm = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "step":
            return warm * 0.5 ** (update // self.halve_every)
        if self.schedule == "trapezoid":
            return warm * min(1.0, max(0.0, 1 - progress) / self.fall)
        return warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


_FAST = Recipe(
    name="fast",
    updates=12_000,
    patch=32,
    optimizer="muon",
    lr=1e-3,
    schedule="cosine",
    warmup=50,
    clip=1.0,
    icnr=True,
)
RECIPES = {
    "paper": Recipe(),
    "fast": _FAST,
    # what gained more than chance in 600 updates of a small network: benchmarks/results/experiments.md
    "modern": replace(_FAST, name="modern", candidates=4, muon_centred=True, schedule="step", ema=0.99),
    "photo": replace(_FAST, name="photo", degradation="photo"),  # for --init with a bicubic network
    "film": replace(_FAST, name="film", degradation="film"),  # likewise
}


def find(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UsageError: no such recipe.
    """
    if name not in RECIPES:
        raise UsageError(f"No recipe is called {name!r}.", f"Choose one of: {', '.join(RECIPES)}.")
    return RECIPES[name]


Description = TypeVar("Description")
_NETWORK_PREFIX = "network."


def split_settings(settings: Iterable[str]) -> tuple[list[str], list[str]]:
    """(settings of the network, without their "network.", settings of the recipe)."""
    about = list(settings)
    network = [
        setting.removeprefix(_NETWORK_PREFIX) for setting in about if setting.startswith(_NETWORK_PREFIX)
    ]
    return network, [setting for setting in about if not setting.startswith(_NETWORK_PREFIX)]


def with_settings(described: Description, settings: Iterable[str]) -> Description:
    """A recipe or network spec with some fields replaced.

    Args:
        described: a dataclass; it is not changed itself.
        settings: "field=value" each, values as in JSON: `patch=32`, `flip=false`, `betas=[0.9,0.99]`;
            the quotes around a word may be left out.

    Raises:
        UsageError: no such field, a value of another kind, or one that the dataclass refuses.
    """
    known = {field.name: getattr(described, field.name) for field in fields(described)}  # type: ignore[arg-type]
    values = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in known:
            raise UsageError(f"There is no {name!r} to set.", f"There is: {', '.join(known)}.")
        values[name] = _value(setting, text, known[name])
    return replace(described, **values)  # type: ignore[type-var]


def _value(setting: str, text: str, now: object) -> Any:
    """The text as a value of the type of `now`."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    value = tuple(value) if isinstance(value, list) else value
    value = float(value) if isinstance(now, float) and type(value) is int else value
    if type(value) is not type(now):
        raise UsageError(f"{setting!r} does not fit.", f"It is {type(now).__name__}, like {now!r}.")
    return value
