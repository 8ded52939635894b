"""Adam as in the paper, or Muon on the body's convolutions with Adam on the rest."""

from collections.abc import Iterable
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from srcli_train.cuda_graph import Capture, Work
from srcli_train.device import fastest_dtype
from srcli_train.recipes import Recipe


class ConvMuon:
    """Muon (Jordan et al. 2024) on convolution weights, seen as (outputs, kernel*kernel*inputs) matrices.

    Does what torch.optim.Muon does without weight decay, but to all matrices of one shape at once: its loop
    over single matrices is two dozen kernels each, which on a GPU take longer than a small network's update.

    Muon moves a weight equally far in all directions, also in that of its input's mean. One step there
    shifts a unit at all pixels at once and can turn its ReLU off for good. `centred` trains the weights as if
    their input had no mean: the gradient is that of such a layer, and the bias takes up the shift.

    Args:
        convs: with biases.
        momentum: of Nesterov's kind, 0-1.
        centred: see above.
    """

    def __init__(self, convs: Iterable[nn.Conv2d], momentum: float, centred: bool) -> None:
        self._convs, self._momentum = list(convs), momentum
        self.input_means = [_follow_mean(conv) for conv in self._convs] if centred else []
        self.buffers = [torch.zeros_like(_matrix(c.weight.detach())) for c in self._convs]
        assert all(_matrix(c.weight).data_ptr() == c.weight.data_ptr() for c in self._convs), (
            "weights must be channels_last, or the matrices would be copies"
        )

    def step(self, lr: float | Tensor) -> None:
        """One update of the weights that have a gradient; the others stay untouched, state included.

        Args:
            lr: step in every direction, times sqrt(max(1, rows / columns)); a scalar tensor is not read on
                the host.
        """
        with torch.no_grad():
            shapes: dict[torch.Size, list[int]] = {}
            for number, conv in enumerate(self._convs):
                if conv.weight.grad is not None:
                    shapes.setdefault(conv.weight.shape, []).append(number)
            for numbers in shapes.values():
                rows, columns = self.buffers[numbers[0]].shape
                self._step(numbers, lr * max(1.0, rows / columns) ** 0.5)

    def _step(self, numbers: list[int], lr: float | Tensor) -> None:
        """Update the weights of these layers, which have one shape."""
        convs, buffers = [self._convs[n] for n in numbers], [self.buffers[n] for n in numbers]
        grads = torch.stack([_matrix(cast(Tensor, c.weight.grad)) for c in convs])
        means = (
            _mean_rows(torch.stack([self.input_means[n] for n in numbers]), convs[0])
            if self.input_means
            else None
        )
        if means is not None:
            grads -= torch.stack([_bias_grad(c) for c in convs]).unsqueeze(2) * means.unsqueeze(1)
        momenta = torch.stack(buffers).lerp_(grads, 1 - self._momentum)
        torch._foreach_copy_(buffers, list(momenta.unbind()))
        steps = orthogonal(grads.lerp(momenta, self._momentum)).to(grads.dtype) * -lr
        torch._foreach_add_([_matrix(c.weight.detach()) for c in convs], list(steps.unbind()))
        if means is not None:
            moved = torch.bmm(steps, means.unsqueeze(2)).squeeze(2)
            torch._foreach_sub_([cast(Tensor, c.bias).detach() for c in convs], list(moved.unbind()))


_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices of equal singular values, roughly, by Newton-Schulz steps.

    They are taken in bfloat16 where the device has that natively, as few digits do.

    Args:
        matrices: (N, rows, columns).

    Returns:
        (N, rows, columns) bfloat16 or float32; singular values 0.7 to 1.2, of zero matrices 0.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.transpose(1, 2) if tall else matrices).to(fastest_dtype(matrices.device))
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


_FOLLOW = 0.05  # weight of a minibatch in the running mean


def _follow_mean(conv: nn.Conv2d) -> Tensor:
    """(I + 1,) running means of the convolution's input channels and of 1, updated while it trains."""
    seen = conv.weight.new_zeros(conv.in_channels + 1)

    def follow(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if module.training:
            mean = given[0].detach().mean((0, 2, 3), dtype=seen.dtype)
            seen.lerp_(torch.cat([mean, mean.new_ones(1)]), _FOLLOW)

    conv.register_forward_pre_hook(follow)
    return seen


def _mean_rows(seen: Tensor, conv: nn.Conv2d) -> Tensor:
    """The mean inputs of (N, I + 1) as rows of such a weight's matrix meet them: (N, k*k*I)."""
    return (seen[:, :-1] / seen[:, -1:].clamp_min(_FOLLOW)).repeat(1, conv.weight[0, 0].numel())


def _bias_grad(conv: nn.Conv2d) -> Tensor:
    return cast(Tensor, cast(nn.Parameter, conv.bias).grad)


def _matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) channels-last -> (O, k*k*I) without copying, if its memory allows."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


class Optimizer:
    """All optimizers of a run behind one step. Parameters without a gradient are left alone.

    Rates are scalars on the network's device, so that a CUDA graph of a step can be replayed at another rate.

    Args:
        network: on the device where it is trained.
        recipe: says which optimizer, and its constants.
        capture: how a step is captured whose gradients stay where they are; None for never.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, capture: Capture | None = None) -> None:
        muon = [m for name, m in network.named_modules() if _for_muon(name, m, recipe)]
        weights = {id(conv.weight) for conv in muon}
        rest = [p for p in network.parameters() if id(p) not in weights]
        self._recipe, self._capture = recipe, capture
        self._graphs: dict[int, Work] = {}
        self._parameters = list(network.parameters())
        self._lr, self._muon_lr = (self._parameters[0].new_zeros(()) for _ in range(2))
        self._adam = torch.optim.Adam(
            rest, lr=self._lr, betas=recipe.betas, eps=recipe.eps, fused=True, capturable=True
        )
        self._muon = ConvMuon(muon, recipe.muon_momentum, recipe.muon_centred) if muon else None

    @property
    def means(self) -> list[Tensor]:
        """Mean inputs that follow this rank's minibatches; ranks average them. Empty without centred Muon."""
        return self._muon.input_means if self._muon else []

    def step(self, rate: float, graph: int | None = None) -> None:
        """Clip the gradient norm and update with learning rates times `rate`; then drop the gradients.

        Args:
            rate: factor on both learning rates.
            graph: the CUDA graph that wrote the gradients, by number: they stay where they are, so the step
                is captured once as well, and replayed; None for gradients that lie elsewhere every time.
        """
        self._lr.fill_(self._recipe.lr * rate)
        self._muon_lr.fill_(self._recipe.muon_lr * rate)
        if graph is None or self._capture is None:
            self._update()
        else:
            if graph not in self._graphs:
                self._graphs[graph] = self._capture(self._update)
            self._graphs[graph]()
        for parameter in self._parameters:
            parameter.grad = None

    def _update(self) -> None:
        if self._recipe.clip:
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
        self._adam.step()
        if self._muon:
            self._muon.step(self._muon_lr)

    def state_dict(self) -> dict[str, Any]:
        """State of all optimizers, plain tensors and numbers; the rates are those of the last step."""
        adam = self._adam.state_dict()
        groups = [{**group, "lr": float(group["lr"])} for group in adam["param_groups"]]
        return {
            "adam": {**adam, "param_groups": groups},
            "muon": self._muon.buffers if self._muon else [],
            "means": self.means,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, on whatever device."""
        self._adam.load_state_dict(state["adam"])
        for group in self._adam.param_groups:
            group.update(lr=self._lr, capturable=True)
        buffers = self._muon.buffers if self._muon else []
        for own, kept in zip([*buffers, *self.means], [*state["muon"], *state["means"]], strict=True):
            own.copy_(kept)


def _for_muon(name: str, module: nn.Module, recipe: Recipe) -> TypeGuard[nn.Conv2d]:
    chosen = recipe.optimizer == "muon" and name.split(".")[0] in recipe.muon_modules
    return chosen and isinstance(module, nn.Conv2d)
