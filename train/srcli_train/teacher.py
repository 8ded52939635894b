"""Learning from one's own self-ensemble: the starting network, frozen, seen from all eight sides.

The mean over the eight flips and turns of a picture (paper, section 3.4) is better than the network itself,
by what the network does differently on turned pictures. A student that comes closer to that mean keeps the
gain in a single run. A photograph tells a network little about each pixel, since most of the error there is
detail that cannot be known; the teacher's answer has none of that. What it brings: `distill` in
benchmarks/results/experiments.md.
"""

import numpy as np
import torch
from torch import Tensor, nn

from srcli.imaging.ensemble import TRANSFORMS, apply
from srcli_train.precision import lowered


class Teacher:
    """Answers for minibatches, each from one of the eight sides; their mean is the self-ensemble's answer.

    Args:
        network: not trained any more; on `device`.
        precision: a recipe's.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str) -> None:
        self._network = network.eval().requires_grad_(False)
        self._device, self._precision = device, precision
        self._sides: dict[int, tuple[Tensor, Tensor]] = {}

    def state(self) -> dict[str, Tensor]:
        """The state_dict, on the CPU."""
        return {name: values.cpu() for name, values in self._network.state_dict().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on as the teacher whose `state` this is."""
        self._network.load_state_dict(state)

    def __call__(self, lr: Tensor, scale: int, side: Tensor) -> Tensor:
        """What the network makes of turned patches, turned back.

        Args:
            lr: (N, 3, P, P) RGB 0-1.
            side: (1,) integer on the device, of `ensemble.TRANSFORMS`: a tensor that is never read
                on the host, so that a recorded graph can be replayed with another.

        Returns:
            (N, 3, scale*P, scale*P) float32 0-1, without history.
        """
        with torch.no_grad(), lowered(self._device, self._precision):
            turned = _rearranged(lr, self._turns(lr.shape[-1])[0], side)
            answer = self._network(turned.contiguous(memory_format=torch.channels_last), scale)
        return _rearranged(answer.float(), self._turns(answer.shape[-1])[1], side)

    def _turns(self, length: int) -> tuple[Tensor, Tensor]:
        """(8, length * length): where each pixel of a turned square comes from, and the way back."""
        if length not in self._sides:
            square = np.arange(length * length, dtype=np.float32).reshape(1, 1, length, length)
            there = np.stack([apply(square, number).reshape(-1) for number in TRANSFORMS]).astype(np.int64)
            back = np.argsort(there, axis=1)
            self._sides[length] = (
                torch.from_numpy(there).to(self._device),
                torch.from_numpy(back).to(self._device),
            )
        return self._sides[length]


def _rearranged(images: Tensor, turns: Tensor, side: Tensor) -> Tensor:
    """(N, C, P, P) with its pixels taken from where row `side` (1,) of `turns` (8, P * P) says."""
    pixels = turns.index_select(0, side).flatten()
    return images.flatten(2).index_select(2, pixels).view(images.shape)
