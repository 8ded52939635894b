"""Recorded updates: the same gradients as computed ones, from memory that stays where it is."""

from dataclasses import replace

import pytest
import torch
from tiny_training import FAST, TINY_MDSR
from torch import Tensor, nn

from srcli_train.gradients import WARM_UP, Gradients, _loss
from srcli_train.networks import build
from srcli_train.recorded import Work

CPU = torch.device("cpu")


class Recorder:
    """What a CUDA graph does, on a CPU: repeats the work into the gradients of its first time."""

    def __init__(self, network: nn.Module) -> None:
        self.recorded = self.replayed = 0
        self._parameters = list(network.parameters())

    def __call__(self, work: Work) -> Work:
        self.recorded += 1
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
    recorder = Recorder(network)
    plain, recorded = Gradients(network, recipe, CPU), Gradients(network, recipe, CPU, record=recorder)
    scales = [2, 3, 2, 2, 3, 2, 3, 3, 2, 3, 2]
    for number, scale in enumerate(scales):
        expected_loss = plain(*batch(number, scale))
        expected = gradients_of(network)
        assert torch.equal(recorded(*batch(number, scale)), expected_loss)
        for got, wanted in zip(gradients_of(network), expected, strict=True):
            assert (got is None) == (wanted is None)  # the other scales' branches stay without one
            assert got is None or wanted is None or torch.equal(got, wanted)
    assert recorder.recorded == 2
    assert recorder.replayed == len(scales) - 2 * WARM_UP


def test_a_loss_stays_when_the_next_one_is_computed() -> None:
    network = build(TINY_MDSR)
    recorded = Gradients(network, FAST, CPU, record=Recorder(network))
    losses = []
    for number in range(WARM_UP + 3):
        losses.append(recorded(*batch(number, 2)))
        gradients_of(network)
    assert len({float(loss) for loss in losses}) == len(losses)


def test_the_spectrum_of_a_wave_is_one_frequency_and_of_noise_all() -> None:
    """A wave of amplitude 8 has its energy in one of the frequencies, so the mean amplitude is small;
    noise of the same mean square spreads it evenly: by Parseval's theorem the root mean square is kept."""
    side = 32
    wave = 8 * torch.cos(torch.arange(side) * 2 * torch.pi * 4 / side).expand(1, 3, side, side)
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 8 / 2**0.5
    recipe = replace(FAST, frequency=1.0)
    assert float(_loss(wave, recipe)) == pytest.approx(8 * side / 2 / (side * (side // 2 + 1)), rel=1e-4)
    # Rayleigh: the mean of an even spread is sqrt(pi)/2 of its root mean square, to some percent of noise
    assert float(_loss(noise, recipe)) == pytest.approx(8 / 2**0.5 * torch.pi**0.5 / 2, rel=0.03)
    assert float(_loss(wave, replace(FAST, frequency=0.25))) == pytest.approx(
        0.75 * float(wave.abs().mean()) + 0.25 * float(_loss(wave, recipe)), rel=1e-5
    )
