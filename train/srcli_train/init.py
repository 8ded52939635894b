"""Starting weights: ICNR upsamplers, and networks that start from another one's checkpoint."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from srcli.errors import TrainingError
from srcli_train.checkpoint import Checkpoint


def icnr(network: nn.Module) -> None:
    """Make every upsampler convolution repeat pixels: equal channels in groups (Aitken et al. 2017)."""
    for parent in network.modules():
        children = list(parent.children())
        for conv, shuffle in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(shuffle, nn.PixelShuffle):
                repeat = shuffle.upscale_factor**2
                with torch.no_grad():
                    conv.weight.copy_(conv.weight[::repeat].repeat_interleave(repeat, 0))
                    if conv.bias is not None:
                        conv.bias.copy_(conv.bias[::repeat].repeat_interleave(repeat, 0))


def start_from(network: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Copy every weight that fits (paper, section 4.2: x3 and x4 start from the trained x2).

    A single-scale checkpoint's upsampler goes to MDSR's branch of that scale, and MDSR's
    pre-processing modules then start as identities, so that the trunk sees what it was trained on.

    Returns:
        Names of the weights that could not be filled and keep their initialisation.

    Raises:
        TrainingError: nothing fits.
    """
    given = _renamed(network, checkpoint)
    own = network.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if not any(k.startswith(("body", "blocks")) for k in fitting):
        raise TrainingError(
            f"The checkpoint holds {checkpoint.network.name}, of which no block fits this network.",
            "Blocks, features and family must match.",
        )
    network.load_state_dict(own | fitting)
    if checkpoint.network.family == "edsr":
        _identity_pre_processing(network)
    return sorted(set(own) - set(fitting))


def _renamed(network: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The checkpoint's weights under this network's names."""
    weights = checkpoint.weights
    if checkpoint.network.family == "edsr" and hasattr(network, "pre_process"):
        branch = f"upsampler.{checkpoint.network.scales[0]}."
        return {k.replace("upsampler.", branch): v for k, v in weights.items()}
    if checkpoint.network.family == "mdsr" and hasattr(network, "scale"):
        return {k.replace(f"upsampler.{network.scale}.", "upsampler."): v for k, v in weights.items()}
    return weights


def _identity_pre_processing(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if name.startswith("pre_process") and ".conv2." in name:
            nn.init.zeros_(parameter)
