"""Adam as in the paper, or PyTorch's Muon on the body's convolutions with Adam on the rest."""

from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from srcli_train.recipes import Recipe


class ConvMuon:
    """torch.optim.Muon on convolution weights, seen as (outputs, kernel*kernel*inputs) matrices.

    PyTorch's Muon takes matrices only. Each weight gets a two-dimensional Parameter over the same
    memory, so the network needs no change and nothing is copied.

    Muon moves a weight equally far in all directions, also in that of its input's mean. One step there
    shifts a unit at all pixels at once, and a ReLU that is pushed below zero so stays off. `centred` trains
    the weights as if they saw their input less its mean: the gradient is that of such a layer, and the bias
    takes up what the step would have moved.

    Args:
        convs: with biases.
        lr, momentum: of Muon.
        centred: see above.
    """

    def __init__(self, convs: Iterable[nn.Conv2d], lr: float, momentum: float, centred: bool) -> None:
        self._convs = list(convs)
        self._matrices = [nn.Parameter(_matrix(c.weight.detach())) for c in self._convs]
        shared = [
            m.data_ptr() == c.weight.data_ptr() for m, c in zip(self._matrices, self._convs, strict=True)
        ]
        assert all(shared), "weights must be channels_last, or the matrices would be copies"
        self.means = [_follow_mean(conv) for conv in self._convs] if centred else []
        self.inner = torch.optim.Muon(
            self._matrices, lr=lr, momentum=momentum, nesterov=True, weight_decay=0.0, adjust_lr_fn="original"
        )

    def step(self) -> None:
        """One update of the weights that have a gradient; the others stay untouched, state included."""
        for conv, matrix in zip(self._convs, self._matrices, strict=True):
            matrix.grad = None if conv.weight.grad is None else _matrix(conv.weight.grad)
        shifts = [
            self._centre(*layer) for layer in zip(self._convs, self._matrices, self.means, strict=False)
        ]
        self.inner.step()  # type: ignore[no-untyped-call]
        for compensate in shifts:
            compensate()

    def _centre(self, conv: nn.Conv2d, matrix: nn.Parameter, mean: Tensor) -> Callable[[], None]:
        """Make the gradient that of a centred input; returns what moves the bias after the step."""
        bias, seen = cast(nn.Parameter, conv.bias), mean.repeat(conv.weight[0, 0].numel())
        if matrix.grad is None or bias.grad is None:
            return lambda: None
        matrix.grad -= torch.outer(bias.grad, seen)
        before = matrix.detach() @ seen

        def compensate() -> None:
            bias.detach().sub_(matrix.detach() @ seen - before)

        return compensate


_FOLLOW = 0.05  # weight of a minibatch in the mean that is followed


def _follow_mean(conv: nn.Conv2d) -> Tensor:
    """(I,) mean of the convolution's input, kept up to date while it trains."""
    mean = conv.weight.new_zeros(conv.in_channels)

    def follow(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if module.training:
            mean.lerp_(given[0].detach().mean((0, 2, 3), dtype=torch.float32), _FOLLOW)

    conv.register_forward_pre_hook(follow)
    return mean


def _matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) channels-last -> (O, k*k*I) without copying, if its memory allows."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


class Optimizer:
    """All optimizers of a run behind one step. Parameters without a gradient are left alone."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        muon = [m for name, m in network.named_modules() if _for_muon(name, m, recipe)]
        weights = {id(conv.weight) for conv in muon}
        rest = [p for p in network.parameters() if id(p) not in weights]
        self._recipe = recipe
        self._parameters = list(network.parameters())
        self._adam = torch.optim.Adam(rest, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True)
        told = recipe.muon_lr, recipe.muon_momentum, recipe.muon_centred
        self._muon = ConvMuon(muon, *told) if muon else None

    @property
    def means(self) -> list[Tensor]:
        """What it has seen of this process's minibatches, and all processes must agree on."""
        return self._muon.means if self._muon else []

    def step(self, rate: float) -> None:
        """Clip the gradient norm and update with learning rates times `rate`; then drop the gradients."""
        if self._recipe.clip:
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
        for group in self._adam.param_groups:
            group["lr"] = self._recipe.lr * rate
        self._adam.step()
        if self._muon:
            for group in self._muon.inner.param_groups:
                group["lr"] = self._recipe.muon_lr * rate
            self._muon.step()
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """State of all optimizers, plain tensors and numbers."""
        return {
            "adam": self._adam.state_dict(),
            "muon": self._muon.inner.state_dict() if self._muon else None,
            "means": self.means,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._adam.load_state_dict(state["adam"])
        if self._muon:
            self._muon.inner.load_state_dict(state["muon"])
        for mean, kept in zip(self.means, state.get("means", []), strict=False):
            mean.copy_(kept)


def _for_muon(name: str, module: nn.Module, recipe: Recipe) -> TypeGuard[nn.Conv2d]:
    chosen = recipe.optimizer == "muon" and name.split(".")[0] in recipe.muon_modules
    return chosen and isinstance(module, nn.Conv2d)
