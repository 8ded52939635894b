"""Gradients by products are autograd's own, and whatever they are not made for is left to PyTorch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_gradients import batch, gradients_of
from tiny_training import FAST, TINY_MDSR
from torch import Tensor, nn

from srcli_train import gradients, products
from srcli_train.gradients import Gradients
from srcli_train.networks import build, preset
from srcli_train.products import Products, wanted, weight_gradient

CPU = torch.device("cpu")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def near(got: Tensor, expected: Tensor) -> bool:
    return got.shape == expected.shape and bool((got - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("side", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 7), (3, 9, 2), (2, 16, 16)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_weights_are_those_of_autograd(
    side: int, shape: tuple[int, int, int], layout: torch.memory_format
) -> None:
    count, height, width = shape
    x = drawn(1, count, 5, height, width).contiguous(memory_format=layout)
    gradient = drawn(2, count, 7, height, width).contiguous(memory_format=layout)
    weight = torch.zeros(7, 5, side, side, dtype=torch.float64, requires_grad=True)
    F.conv2d(x.double(), weight, padding=side // 2).backward(gradient.double())  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    got = weight_gradient(x, gradient, side)
    assert near(got, weight.grad.float())
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "scale"), [("mdsr-baseline", 4), ("edsr-baseline", 3), ("srresnet", 2)])
def test_networks_get_the_same_gradients(name: str, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def counted(x: Tensor, gradient: Tensor, side: int) -> Tensor:
        calls.append(side)
        return weight_gradient(x, gradient, side)

    monkeypatch.setattr(products, "weight_gradient", counted)
    network, image = build(preset(name, scale)), drawn(3, 2, 3, 6, 5)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network(image, scale).square().mean().backward()
    expected = gradients_of(network)
    with Products():
        network(image, scale).square().mean().backward()
    for got, own in zip(gradients_of(network), expected, strict=True):
        assert (got is None) == (own is None)
        assert got is None or own is None or bool((got - own).abs().max() <= 1e-3 * own.abs().max() + 1e-12)
    wide = [m for m in network.modules() if isinstance(m, nn.Conv2d) and min(m.weight.shape[:2]) >= 16]
    assert 0 < len(calls) <= len(wide)  # other scales' branches take no part


@pytest.mark.parametrize(
    ("conv", "why"),
    [
        (nn.Conv2d(3, 64, 3, padding=1), "few inputs"),
        (nn.Conv2d(64, 3, 3, padding=1), "few outputs"),
        (nn.Conv2d(32, 32, 3), "no padding"),
        (nn.Conv2d(32, 32, 3, padding=1, stride=2), "strides"),
        (nn.Conv2d(32, 32, 3, padding=1, dilation=2), "dilation"),
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), "groups"),
        (nn.Conv2d(32, 32, (1, 3), padding=(0, 1)), "a kernel that is no square"),
        (nn.Conv2d(32, 32, 3, padding="same"), "padding by name"),
        (nn.Conv2d(32, 32, 3, padding=1, bias=False), "no bias"),
        (nn.Conv2d(32, 32, 3, padding=1).requires_grad_(False), "weights that do not learn"),
    ],
)
def test_other_convolutions_are_left_alone(
    conv: nn.Conv2d, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "weight_gradient", lambda *a: pytest.fail(why))
    x = drawn(4, 1, conv.in_channels, 8, 8).requires_grad_()
    expected = conv(x)
    with Products():
        assert torch.equal(conv(x), expected)
        conv(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("device", "precision", "capability", "pays"),
    [
        ("cpu", "fp32", "AVX2", True),
        ("cpu", "fp32", "AVX512", False),
        ("cpu", "fp32", "DEFAULT", False),
        ("cpu", "bf16", "AVX2", False),
        ("cuda", "fp32", "AVX2", False),
    ],
)
def test_they_are_for_cpus_with_avx2_alone(
    device: str, precision: str, capability: str, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert wanted(torch.device(device), precision) is pays


@pytest.mark.parametrize("pays", [True, False])
def test_training_takes_them_where_they_pay(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = list[bool]()

    class Watched(Products):
        def __enter__(self) -> Any:
            entered.append(True)
            return super().__enter__()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(gradients, "Products", Watched)
    monkeypatch.setattr(gradients, "wanted", lambda device, precision: pays)
    network = build(TINY_MDSR)
    Gradients(network, FAST, CPU)(*batch(1, 2))
    assert bool(entered) is pays
    assert any(g is not None and g.any() for g in gradients_of(network))
