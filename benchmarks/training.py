"""The rate of the real training loop against the same updates on tensors that are simply there.

Real: mapped pictures, sampler, drawing ahead, log, as `srcli train` runs them. Synthetic: the same
network, optimizer and scales, on minibatches of noise that lie in memory, on a GPU in the GPU's. Blocks of
both in turns. A block should last seconds: each begins by starting the threads or processes that draw.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch

import pictures
from common import RESULTS, Section, Spread, Table, machine, publish, ratio, spread
from srcli.benchmark.rounds import interleave, timed
from srcli_train.data import Pictures, load_pictures
from srcli_train.device import find_device, resolve_precision
from srcli_train.folders import find_source
from srcli_train.job import Job
from srcli_train.loop import Trainer
from srcli_train.networks import NetworkSpec, preset
from srcli_train.patches import DeviceMinibatch, Minibatch, PatchSampler
from srcli_train.ranks import Agreed
from srcli_train.recipes import Recipe, find

AIM = 0.90
NETWORKS = {"edsr-baseline": 2, "mdsr-baseline": None, "mdsr-80": None, "edsr": 2}
"""What is trained, and its scale."""
_USUAL = ["edsr-baseline", "mdsr-baseline"]


_Batch = Minibatch | DeviceMinibatch


@dataclass(frozen=True, slots=True)
class Rates:
    """Updates a second of one network, and real / synthetic by rounds."""

    network: str
    real: Spread
    synthetic: Spread
    ratio: Spread


class _Silent:
    """A watcher that shows nothing."""

    def status(self, status: object) -> None: ...
    def picture(self, update: int, image: object) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    given = sys.argv[1:] if arguments is None else arguments
    options, before = _parse(given), machine()
    with TemporaryDirectory() as scratch:
        source = _folder(Path(scratch) / "hr", options)
        rates = [_rates(preset(n, NETWORKS[n]), source, Path(scratch), options) for n in options.networks]
    publish(options.out, _section(rates, options), given, before)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=list(NETWORKS), default=_USUAL)
    add("--recipe", default="fast")
    add("--images", type=int, default=32)
    add("--side", type=int, default=480)
    add("--block", type=int, default=12, help="updates a block")
    add("--device", default="auto", help="cpu, cuda or cuda:N")
    add("--repetitions", type=int, default=4, help="blocks of each kind, after one that warms up")
    add("--out", type=Path, default=RESULTS / "training.json")
    return parser.parse_args(arguments)


def _folder(place: Path, options: argparse.Namespace) -> Path:
    place.mkdir()
    for number in range(options.images):
        image = pictures.photograph(options.side, options.side, number)
        pictures.save(image, place / f"{number:03}.png")
    return place


def _rates(network: NetworkSpec, folder: Path, scratch: Path, options: argparse.Namespace) -> Rates:
    recipe = find(options.recipe)
    mapped = load_pictures(find_source(folder), network.scales, scratch / "cache", lambda done, total: None)
    job = Job(folder, network, recipe, scratch / network.name, device=options.device, log_every=options.block)
    trainer = Trainer(job, mapped, (), _Silent())
    blocks = _Blocks(trainer, mapped, recipe, options.block)
    seconds = interleave({"real": blocks.real, "synthetic": blocks.synthetic}, options.repetitions)
    per_second = {name: [options.block / s for s in values] for name, values in seconds.items()}
    real, synthetic = per_second["real"], per_second["synthetic"]
    return Rates(_name(network), spread(real), spread(synthetic), ratio(real, synthetic))


class _Blocks:
    """Blocks of updates of one trainer; both kinds draw the same scales, so their work is the same."""

    def __init__(self, trainer: Trainer, mapped: Pictures, recipe: Recipe, size: int) -> None:
        self._trainer, self._size = trainer, size
        self._sampler = PatchSampler(mapped, recipe)
        self._noise = {s: _noise(s, recipe, trainer.device) for s in mapped.lr}

    def real(self) -> float:
        """The training loop itself, but for the checkpoint at its end, which comes once in minutes."""
        self._trainer.update = 0  # all blocks draw the same patches
        with patch.object(self._trainer, "_save"):
            return timed(lambda: self._trainer.run(stop_at=self._size))()

    def synthetic(self) -> float:
        """Its updates alone, of the same scales in the same order."""
        batches = [self._noise[self._sampler.plan(n).scale] for n in range(self._size)]
        self._trainer.update = 0
        return timed(_all(self._trainer._step, batches))()


def _all(step: Callable[[_Batch], Agreed], batches: list[_Batch]) -> Callable[[], None]:
    def run() -> None:
        agreed = [step(batch) for batch in batches]
        agreed[-1].loss.item()  # a GPU may still be at work

    return run


def _noise(scale: int, recipe: Recipe, device: torch.device) -> _Batch:
    """Where the trainer's own minibatches lie, so that nothing has to be copied to a GPU."""
    draw, side = np.random.default_rng(scale), recipe.patch
    lr = draw.integers(0, 256, (recipe.batch, side, side, 3), np.uint8)
    hr = lr.repeat(scale, 1).repeat(scale, 2)
    if device.type == "cpu":
        return Minibatch(scale, lr, hr)
    return DeviceMinibatch(scale, torch.from_numpy(lr).to(device), torch.from_numpy(hr).to(device))


def _name(network: NetworkSpec) -> str:
    return f"{network.name} {'/'.join(f'x{s}' for s in network.scales)}"


def _section(rates: list[Rates], options: argparse.Namespace) -> Section:
    rows = tuple(
        (
            rate.network,
            f"{rate.real.median:.2f}",
            f"{rate.synthetic.median:.2f}",
            f"**{rate.ratio.median:.3f}**",
            f"{rate.ratio.lowest:.3f} – {rate.ratio.highest:.3f}",
        )
        for rate in rates
    )
    recipe = find(options.recipe)
    precision = resolve_precision(recipe.precision, find_device(options.device))
    return Section(
        "training",
        "Training: the data never holds up an update",
        f"Recipe {recipe.name} (batch {recipe.batch}, patches of {recipe.patch}, {precision}), "
        f"{options.images} pictures of {options.side}×{options.side}; blocks of {options.block} updates of "
        f"the real loop and of the same updates on synthetic tensors, {options.repetitions} of each in turns "
        f"after a warm-up. Aim: a ratio of {AIM}.",
        (Table(("network", "updates/s, real", "synthetic", "ratio", "range"), rows),),
        {"rates": [asdict(rate) for rate in rates]},
    )


if __name__ == "__main__":
    main()
