"""srcli's own checkpoints, under a name of the user's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srcli.errors import ModelFileError
from srcli_export.collapse import collapsed
from srcli_export.exporter import describe
from srcli_export.fuse import fuse
from srcli_export.importing.chains import ChainSource
from srcli_train.checkpoint import load_checkpoint
from srcli_train.networks import build
from srcli_train.networks.layers import MEAN_RGB

_KEYS = {"format", "network", "recipe", "weights"}


def is_own(raw: Mapping[str, Any]) -> bool:
    """Whether a file that was read is a checkpoint of srcli train."""
    return raw.keys() >= _KEYS


def from_checkpoint(path: Path) -> ChainSource:
    """The network of a checkpoint.

    Raises:
        TrainingError: the checkpoint is damaged or of another version.
        ModelFileError: its weights are not those of the network it describes.
    """
    checkpoint = load_checkpoint(path)
    spec = checkpoint.network
    try:
        network = build(spec)
        network.load_state_dict(checkpoint.weights)
        network.float().eval()
        layers = {scale: collapsed(fuse(network, spec, scale)) for scale in spec.scales}
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ModelFileError(
            f"{path}: the weights do not fit the network {spec.name!r} ({error})."
        ) from error
    specs = {scale: describe(checkpoint, scale, layers[scale]) for scale in spec.scales}
    return ChainSource("srcli checkpoint", (), network, specs, layers, MEAN_RGB)
