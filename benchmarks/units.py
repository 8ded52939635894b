"""How many hidden units of trained networks' blocks fire: a unit that is off everywhere is of no use.

python benchmarks/units.py runs/*/last.pt --images data/valid
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from srcli.imaging.resize import downscale
from srcli_train.checkpoint import load_checkpoint
from srcli_train.folders import find_source, read_rgb
from srcli_train.networks import Body, build
from srcli_train.patches import Minibatch
from srcli_train.validation import to_batch

SHARES = (0.0, 0.001, 0.01)
"""Of all pixels, at which a unit fires at most to be counted."""

_SIDE = 128  # of the LR crops


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: a checkpoint a row, all blocks of its body together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument(
        "--images", type=Path, required=True, help="folder of HR images; their middles are used"
    )
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    counts = " | ".join("never fire" if not s else f"at most {s:.1%}" for s in SHARES)
    print(f"| checkpoint | updates | hidden units of the body | {counts} | mean share of pixels |")
    print("|---" * (4 + len(SHARES)) + "|")
    for path in options.checkpoints:
        print(row(path, options.images))


def row(path: Path, images: Path) -> str:
    """One line of the table."""
    checkpoint = load_checkpoint(path)
    network = build(checkpoint.network)
    network.load_state_dict(checkpoint.weights)
    firing = _firing(network, _minibatches(images, checkpoint.network.scales))
    cells = [str(int((firing <= share).sum())) for share in SHARES]
    name = f"{path.parent.name}/{path.name}"
    shown = [name, f"{checkpoint.facts.updates:,}", str(len(firing)), *cells, f"{float(firing.mean()):.1%}"]
    return f"| {' | '.join(shown)} |"


def _firing(network: nn.Module, minibatches: Iterable[Minibatch]) -> Tensor:
    """Share of pixels at which each hidden unit of the body's blocks is on, block by block."""
    seen: dict[nn.Module, list[Tensor]] = {}

    def watch(conv: nn.Module, given: tuple[Tensor, ...], hidden: Tensor) -> None:
        seen.setdefault(conv, []).append((hidden > 0).float().mean((0, 2, 3)))

    (body,) = (module for module in network.modules() if isinstance(module, Body))
    for name, module in body.named_modules():
        if name.endswith("conv1"):
            module.register_forward_hook(watch)
    network.eval()
    with torch.no_grad():
        for minibatch in minibatches:
            network(to_batch(minibatch.lr, torch.device("cpu")), minibatch.scale)
    return torch.cat([torch.stack(shares).mean(0) for shares in seen.values()])


def _minibatches(images: Path, scales: tuple[int, ...]) -> Iterator[Minibatch]:
    """The middle of every image at every scale."""
    for path in find_source(images, "valid").hr:
        image = read_rgb(path)
        for scale in scales:
            height, width = (min(side // scale, _SIDE) * scale for side in image.shape[:2])
            top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
            hr = np.ascontiguousarray(image[top : top + height, left : left + width])
            yield Minibatch(scale, np.asarray(downscale(hr, scale), np.uint8)[None], hr[None])


if __name__ == "__main__":
    main()
