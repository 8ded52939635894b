"""EDSR, MDSR and SRResNet: `build(preset("edsr-baseline", 2))`."""

from torch import nn

from srcli_train.networks.edsr import EDSR
from srcli_train.networks.mdsr import MDSR
from srcli_train.networks.spec import PRESETS, SCALES, NetworkSpec, exact_halo, preset
from srcli_train.networks.srresnet import SRResNet

__all__ = [
    "EDSR",
    "MDSR",
    "PRESETS",
    "SCALES",
    "NetworkSpec",
    "SRResNet",
    "build",
    "exact_halo",
    "parameter_count",
    "preset",
]

_CLASSES: dict[str, type[EDSR | MDSR | SRResNet]] = {"edsr": EDSR, "mdsr": MDSR, "srresnet": SRResNet}


def build(spec: NetworkSpec) -> nn.Module:
    """A freshly initialised network; call it as `network(batch, scale)`.

    Batches are (N, 3, H, W) float RGB on 0-1; results (N, 3, scale*H, scale*W) float32, not clipped.
    """
    return _CLASSES[spec.family](spec)


def parameter_count(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in network.parameters())
