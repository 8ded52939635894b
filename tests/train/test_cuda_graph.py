"""Replayed graphs give the gradients of plain updates, in memory that stays where it is."""

from dataclasses import replace

import pytest
import torch
from tiny_training import FAST, TINY_MDSR, gradients
from torch import Tensor, nn

from srcli_train.cuda_graph import WARM_UP, Work
from srcli_train.networks import build


class Capturer:
    """What a CUDA graph does, on a CPU: repeats the work into the gradients of the first call."""

    def __init__(self, network: nn.Module) -> None:
        self.captured = self.replayed = 0
        self._parameters = list(network.parameters())

    def __call__(self, work: Work) -> Work:
        self.captured += 1
        work()
        first = [p.grad for p in self._parameters]
        for gradient in first:
            if gradient is not None:
                gradient.fill_(torch.nan)  # a graph that was not replayed has computed nothing

        def replay() -> None:
            self.replayed += 1
            for parameter in self._parameters:
                parameter.grad = None
            work()
            for parameter, kept in zip(self._parameters, first, strict=True):
                if kept is not None and parameter.grad is not None:
                    kept.copy_(parameter.grad)
                parameter.grad = None

        return replay


def batch(number: int, scale: int) -> tuple[Tensor, Tensor, int]:
    draw = torch.Generator().manual_seed(number)
    lr = torch.randint(0, 256, (2, 8, 8, 3), generator=draw, dtype=torch.uint8)
    hr = torch.randint(0, 256, (2, 8 * scale, 8 * scale, 3), generator=draw, dtype=torch.uint8)
    return lr, hr, scale


def gradients_of(network: nn.Module) -> list[Tensor | None]:
    """Copies of the gradients, which are then dropped as the optimizer drops them."""
    kept = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = None
    return kept


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_replays_give_the_losses_and_gradients_of_plain_updates(loss: str) -> None:
    network, recipe = build(TINY_MDSR), replace(FAST, loss=loss)
    capturer = Capturer(network)
    plain, graphed = gradients(network, recipe), gradients(network, recipe, capturer)
    scales = [2, 3, 2, 2, 3, 2, 3, 3, 2, 3, 2]
    for number, scale in enumerate(scales):
        expected_loss = plain(*batch(number, scale))
        expected = gradients_of(network)
        assert torch.equal(graphed(*batch(number, scale)), expected_loss)
        for got, wanted in zip(gradients_of(network), expected, strict=True):
            assert (got is None) == (wanted is None)  # the other scales' branches stay without one
            assert got is None or wanted is None or torch.equal(got, wanted)
    assert capturer.captured == 2
    assert capturer.replayed == len(scales) - 2 * WARM_UP


def test_a_loss_stays_when_the_next_one_is_computed() -> None:
    network = build(TINY_MDSR)
    graphed = gradients(network, FAST, Capturer(network))
    losses = []
    for number in range(WARM_UP + 3):
        losses.append(graphed(*batch(number, 2)))
        gradients_of(network)
    assert len({float(loss) for loss in losses}) == len(losses)
