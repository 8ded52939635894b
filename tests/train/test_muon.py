"""Muon on convolutions: what is special about the centred form."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from srcli_train.optim import ConvMuon

OFFSET = 30.0


def inputs() -> Iterator[Tensor]:
    """Patches whose channels have a mean far from zero; values in the border are at the mean."""
    draw = torch.Generator().manual_seed(5)
    mean = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1) * OFFSET
    while True:
        yield torch.randn(2, 3, 12, 12, generator=draw) + mean


def conv() -> nn.Conv2d:
    torch.manual_seed(2)
    layer = nn.Conv2d(3, 8, 3)  # without padding every pixel's window has the whole mean
    return layer.to(memory_format=torch.channels_last)


def update(layer: nn.Conv2d, optimizer: ConvMuon, image: Tensor, target: Tensor) -> None:
    layer.weight.grad = layer.bias.grad = None
    (layer(image) - target).square().mean().backward()
    optimizer.step()


def mean_shift(*, centred: bool) -> float:
    """How far a step moves the mean output of a unit, at most."""
    layer, images = conv(), inputs()
    optimizer = ConvMuon([layer], lr=0.01, momentum=0.9, centred=centred)
    for _ in range(200):  # the mean is followed; nothing is learnt
        layer(next(images))
    probe = torch.cat([next(images) for _ in range(50)])
    target = torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(7))
    before = layer(probe).mean((0, 2, 3))
    update(layer, optimizer, next(images), target)
    return float((layer(probe).mean((0, 2, 3)) - before).abs().max().detach())


def test_a_centred_step_leaves_the_mean_output_of_units_where_it_was() -> None:
    assert mean_shift(centred=True) < 0.01
    assert mean_shift(centred=False) > 0.2


def test_a_centred_gradient_is_that_of_the_layer_that_sees_less_the_mean() -> None:
    layer, images = conv(), inputs()
    optimizer = ConvMuon([layer], lr=0.0, momentum=0.9, centred=True)
    image = next(images)
    optimizer.means[0].copy_(image.mean((0, 2, 3)))
    layer.eval()  # follows no further
    target = torch.zeros(2, 8, 10, 10)
    update(layer, optimizer, image, target)
    less = conv()
    rest = image - image.mean((0, 2, 3), keepdim=True)
    shifted = torch.nn.functional.conv2d(rest, less.weight)
    error = layer(image) - target
    (shifted * (2 * error / error.numel()).detach()).sum().backward()
    expected = less.weight.grad
    assert expected is not None
    matrix = expected.permute(0, 2, 3, 1).reshape(8, -1)
    torch.testing.assert_close(optimizer._matrices[0].grad, matrix, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("centred", [False, True])
def test_layers_without_a_gradient_stay_as_they_are(centred: bool) -> None:
    layer, idle, images = conv(), conv(), inputs()
    optimizer = ConvMuon([layer, idle], lr=0.01, momentum=0.9, centred=centred)
    kept = [p.clone() for p in idle.parameters()]
    update(layer, optimizer, next(images), torch.zeros(2, 8, 10, 10))
    assert all(torch.equal(a, b) for a, b in zip(kept, idle.parameters(), strict=True))


def test_the_mean_is_that_of_training_minibatches_only() -> None:
    layer, images = conv(), inputs()
    (mean,) = ConvMuon([layer], lr=0.01, momentum=0.9, centred=True).means
    for _ in range(200):
        layer(next(images))
    torch.testing.assert_close(mean, torch.tensor([1.0, -2.0, 0.5]) * OFFSET, rtol=0, atol=0.05)
    layer.eval()
    before = mean.clone()
    layer(torch.zeros(1, 3, 8, 8))
    assert torch.equal(mean, before)
