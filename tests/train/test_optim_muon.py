"""Muon on convolutions: PyTorch's steps, and what is special about the centred form."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from srcli_train import optim
from srcli_train.optim import ConvMuon, orthogonal

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


def matrix(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def update(layer: nn.Conv2d, optimizer: ConvMuon, image: Tensor, target: Tensor) -> None:
    layer.weight.grad = layer.bias.grad = None
    (layer(image) - target).square().mean().backward()
    optimizer.step(0.01)


def mean_shift(*, centred: bool) -> float:
    """How far a step moves the mean output of a unit, at most."""
    layer, images = conv(), inputs()
    optimizer = ConvMuon([layer], momentum=0.9, centred=centred)
    for _ in range(200):  # the mean is followed; nothing is learnt
        layer(next(images))
    probe = torch.cat([next(images) for _ in range(50)])
    target = torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(7))
    before = layer(probe).mean((0, 2, 3))
    update(layer, optimizer, next(images), target)
    return float((layer(probe).mean((0, 2, 3)) - before).abs().max().detach())


def test_a_centred_step_keeps_the_mean_output() -> None:
    assert mean_shift(centred=True) < 0.01
    assert mean_shift(centred=False) > 0.2


def test_a_centred_step_equals_a_step_on_centred_input() -> None:
    layer, images = conv(), inputs()
    optimizer = ConvMuon([layer], momentum=0.0, centred=True)
    image, target = next(images), torch.zeros(2, 8, 10, 10)
    error = layer(image) - target  # the mean of the first minibatch is followed
    layer.eval()  # and no other
    less = conv()
    shifted = nn.functional.conv2d(image - image.mean((0, 2, 3), keepdim=True), less.weight)
    (shifted * (2 * error / error.numel()).detach()).sum().backward()
    assert less.weight.grad is not None
    expected = orthogonal(matrix(less.weight.grad)[None])[0].float() * -0.01
    before = matrix(layer.weight.detach()).clone()
    update(layer, optimizer, image, target)
    torch.testing.assert_close(matrix(layer.weight.detach()) - before, expected, rtol=0, atol=1e-4)


def test_steps_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On matrices of three shapes, one of them tall; products of bfloat16 are summed in another order.

    PyTorch steps in bfloat16 on every device, so ours has to, here.
    """
    monkeypatch.setattr(optim, "fastest_dtype", lambda device: torch.bfloat16)
    torch.manual_seed(1)
    shapes = [(8, 3, 3), (8, 3, 3), (4, 8, 1), (36, 4, 1)]
    convs = [nn.Conv2d(i, o, k).to(memory_format=torch.channels_last) for o, i, k in shapes]
    plain = [nn.Parameter(matrix(c.weight.detach()).clone()) for c in convs]
    ours = ConvMuon(convs, momentum=0.95, centred=False)
    theirs = torch.optim.Muon(plain, lr=0.02, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original")
    for _ in range(4):
        for layer, weight in zip(convs, plain, strict=True):
            layer.weight.grad = torch.randn_like(layer.weight)
            weight.grad = matrix(layer.weight.grad)
        ours.step(0.02)
        theirs.step()
    for layer, weight in zip(convs, plain, strict=True):
        torch.testing.assert_close(matrix(layer.weight.detach()), weight.detach(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_become_alike(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(4)
    result = orthogonal(torch.randn(3, *shape, generator=draw))
    values = torch.linalg.svdvals(result.float())
    assert result.shape == (3, *shape)
    assert 0.3 < values.min() <= values.max() < 1.3  # square random matrices have values near zero
    assert (orthogonal(torch.zeros(1, *shape)) == 0).all()


def test_a_centred_step_survives_bfloat16() -> None:
    """Gradients arrive rounded to 8 bits; inputs of trained blocks have up to as much mean as spread."""
    layer, target = conv(), torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(7))
    optimizer = ConvMuon([layer], momentum=0.0, centred=True)
    image = next(inputs()) + torch.tensor([-1.0, 2.0, -0.5]).view(1, 3, 1, 1) * (OFFSET - 1)
    start, steps = matrix(layer.weight.detach()).clone(), []
    for rounded in (False, True):
        matrix(layer.weight.detach()).copy_(start)
        layer.weight.grad = layer.bias.grad = None
        (layer(image) - target).square().mean().backward()
        for parameter in layer.parameters():
            parameter.grad = parameter.grad.bfloat16().float() if rounded else parameter.grad
        optimizer.step(0.01)
        steps.append((matrix(layer.weight.detach()) - start).flatten())
    assert 0.9 < nn.functional.cosine_similarity(*steps, dim=0) < 0.99999


@pytest.mark.parametrize("centred", [False, True])
def test_layers_without_a_gradient_stay_as_they_are(centred: bool) -> None:
    layer, idle, images = conv(), conv(), inputs()
    optimizer = ConvMuon([layer, idle], momentum=0.9, centred=centred)
    kept = [p.clone() for p in idle.parameters()]
    update(layer, optimizer, next(images), torch.zeros(2, 8, 10, 10))
    assert all(torch.equal(a, b) for a, b in zip(kept, idle.parameters(), strict=True))


def test_the_mean_follows_training_minibatches_alone() -> None:
    layer, images = conv(), inputs()
    (seen,) = ConvMuon([layer], momentum=0.9, centred=True).input_means
    image = next(images)
    layer(image)
    torch.testing.assert_close(seen[:-1] / seen[-1], image.mean((0, 2, 3)))
    for _ in range(200):
        layer(next(images))
    expected = torch.tensor([1.0, -2.0, 0.5]) * OFFSET
    torch.testing.assert_close(seen[:-1] / seen[-1], expected, rtol=0, atol=0.05)
    layer.eval()
    before = seen.clone()
    layer(torch.zeros(1, 3, 8, 8))
    assert torch.equal(seen, before)
