"""Adam as in the paper, or PyTorch's Muon on the body's convolutions with Adam on the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from srcli_train.recipes import Recipe


class ConvMuon:
    """torch.optim.Muon on convolution weights, seen as (outputs, kernel*kernel*inputs) matrices.

    PyTorch's Muon takes matrices only. Each weight gets a two-dimensional Parameter over the same
    memory, so the network needs no change and nothing is copied.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        self._weights = list(weights)
        self._matrices = [nn.Parameter(_matrix(w.detach())) for w in self._weights]
        shared = [m.data_ptr() == w.data_ptr() for m, w in zip(self._matrices, self._weights, strict=True)]
        assert all(shared), "weights must be channels_last, or the matrices would be copies"
        self.inner = torch.optim.Muon(
            self._matrices, lr=lr, momentum=momentum, nesterov=True, weight_decay=0.0, adjust_lr_fn="original"
        )

    def step(self) -> None:
        """One update of the weights that have a gradient; the others stay untouched, state included."""
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else _matrix(weight.grad)
        self.inner.step()  # type: ignore[no-untyped-call]


def _matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) channels-last -> (O, k*k*I) without copying, if its memory allows."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


class Optimizer:
    """All optimizers of a run behind one step. Parameters without a gradient are left alone."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        muon = {n: p for n, p in network.named_parameters() if _for_muon(n, p, recipe)}
        rest = [p for n, p in network.named_parameters() if n not in muon]
        self._recipe = recipe
        self._parameters = list(network.parameters())
        self._adam = torch.optim.Adam(rest, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True)
        self._muon = ConvMuon(muon.values(), recipe.muon_lr, recipe.muon_momentum) if muon else None

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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._adam.load_state_dict(state["adam"])
        if self._muon:
            self._muon.inner.load_state_dict(state["muon"])


def _for_muon(name: str, parameter: nn.Parameter, recipe: Recipe) -> bool:
    chosen = recipe.optimizer == "muon" and name.split(".")[0] in recipe.muon_modules
    return chosen and parameter.ndim == 4
