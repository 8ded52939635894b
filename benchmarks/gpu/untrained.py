"""The large EDSR and MDSR at x2 with random weights, as ONNX files: none are shipped, and these are as fast.

    python benchmarks/gpu/untrained.py FOLDER

Their pictures mean nothing. Their halo is the exact one, larger than what an export measures on trained
weights: inputs of more than one tile come out slower than with those, single tiles do not. Nothing is
verified as `srcli export` does it, which would take minutes for networks of this size.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from srcli_export.files import write_onnx
from srcli_export.fuse import describe, fuse
from srcli_train.checkpoint import Checkpoint
from srcli_train.networks import NetworkSpec, build, preset
from srcli_train.recipes import find

SCALE = 2
PRESETS = ("edsr", "mdsr-80")


def main(arguments: Sequence[str]) -> None:
    """Write `<preset>-untrained-x2.onnx` of each into a folder."""
    for name in PRESETS:
        print(export(replace(preset(name, SCALE), name=f"{name}-untrained"), Path(arguments[0])), flush=True)


def export(network: NetworkSpec, folder: Path) -> Path:
    """The file of a freshly initialised network at x2; the same weights every time."""
    torch.manual_seed(0)
    made = build(network).eval()
    layers = fuse(made, network, SCALE)
    spec = describe(Checkpoint(network, find("paper"), made.state_dict()), SCALE, layers)
    return write_onnx({SCALE: layers}, {SCALE: spec}, folder)[SCALE]


if __name__ == "__main__":
    main(sys.argv[1:])
