"""The optimisers of a fit: Adam, Signum, and Muon beside Adam."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from modelassay.fitting.options import OptimizerName

_EPS = 6.25e-10  # Gao et al. 2024, appendix A.3: gradients of rare latents are tiny
_MOMENTUM = 0.95  # sparsify's for Signum; Jordan et al. 2024 for Muon

Groups = Sequence[dict[str, Any]]
"""Parameter groups: `params`, and a `rate` that multiplies the run's learning rate."""


def make_optimizer(
    name: OptimizerName, groups: Groups, *, learning_rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """An optimiser of the given groups of parameters.

    Args:
        name: which. `adam` is fused on CPU and on CUDA. `muon` takes the matrices, and Adam the
            vectors, at one rate: an orthogonal update is scaled to the size of Adam's.
        groups: parameter groups; each has a `rate`.
        learning_rate: of the first step.
        betas: Adam's.
    """
    match name:
        case "adam":
            return _adam(groups, learning_rate, betas)
        case "signum":
            return Signum(groups, learning_rate=learning_rate)
        case "muon":
            return _muon_and_adam(groups, learning_rate, betas)


def _adam(groups: Groups, learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return RowAdam(list(groups), lr=learning_rate, betas=betas, eps=_EPS, fused=True)


@final
class RowAdam(torch.optim.Adam):
    """Adam that sees matrices with contiguous columns as their transposes.

    The same steps; the fused kernel would copy such a matrix at each.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step, from the parameters' gradients."""
        turned = [
            parameter
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and _has_columns(parameter)
        ]
        for parameter in turned:
            self._turn(parameter)
        try:
            super().step()
        finally:
            for parameter in turned:
                self._turn(parameter)

    def _turn(self, parameter: nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        parameter.data = parameter.data.t()
        parameter.grad = None if gradient is None else gradient.t()
        for name, moment in self.state[parameter].items():
            if moment.ndim == 2:
                self.state[parameter][name] = moment.t()


def _has_columns(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_contiguous() and tensor.t().is_contiguous()


def _muon_and_adam(
    groups: Groups, learning_rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Muon for what has two dimensions, Adam for the rest.

    A dictionary's matrices are wide: the orthogonal factor of a [d, width] update has d singular
    values of about 1 and entries of root mean square 1 / sqrt(width), which the factor 0.2
    sqrt(max(d, width)) brings to 0.2, Adam's usual size.

    Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the
    scale is that of Liu et al. 2025, "Muon is scalable for LLM training", section 2.2.
    """
    matrices = _only(groups, lambda parameter: parameter.ndim == 2)
    others = _only(groups, lambda parameter: parameter.ndim != 2)
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(
            torch.optim.Muon(
                matrices,
                lr=learning_rate,
                weight_decay=0.0,
                momentum=_MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others:
        parts.append(_adam(others, learning_rate, betas))
    return JointOptimizer(parts)


def _only(groups: Groups, wanted: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    """The groups with only the wanted parameters, without those that keep none."""
    kept = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in kept if group["params"]]


@final
class Signum(torch.optim.Optimizer):
    """Steps of one size against the sign of a momentum.

    ``m <- 0.95 m + 0.05 g``; ``p <- p - lr sign(m)`` where g is not 0. Where it is 0 a parameter
    rests (ours): a rare latent has no gradient in most batches, and the sign of its fading
    momentum would drive it on at full size for hundreds of steps.

    Reference: Bernstein et al. 2018, "signSGD", algorithm 2.
    """

    def __init__(self, groups: Groups, *, learning_rate: float) -> None:
        super().__init__(list(groups), {"lr": learning_rate})

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  # overloads in torch
        self, closure: None = None
    ) -> None:
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
                direction = momentum.sign().mul_(parameter.grad != 0)
                parameter.add_(direction, alpha=-group["lr"])


@final
class JointOptimizer(torch.optim.Optimizer):
    """Several optimisers, each of its own parameters, as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        # One list of groups and one state, so that whoever sets a rate or a moment reaches both.
        own = iter(self.param_groups)
        self.state = defaultdict(dict)
        for part in self.parts:
            part.param_groups = [next(own) for _ in part.param_groups]
            part.state = self.state

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  # overloads in torch
        self, closure: None = None
    ) -> None:
        """One update of all parameters that have a gradient."""
        for part in self.parts:
            part.step()


def moments_of(
    optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter
) -> dict[str, Tensor]:
    """What an optimiser remembers of a parameter, by names that begin with the parameter's."""
    return {f"{name}.{key}": value for key, value in optimizer.state[parameter].items()}


def load_moments(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    tensors: dict[str, Tensor],
) -> None:
    """Give an optimiser back what `moments_of` took from one of its kind.

    Args:
        optimizer: of the given parameters.
        parameters: by their names.
        tensors: saved moments; others may be among them.
    """
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            key.removeprefix(f"{name}."): _placed(value, parameter)
            for key, value in tensors.items()
            if key.rpartition(".")[0] == name and key not in parameters
        }


def _placed(moment: Tensor, parameter: nn.Parameter) -> Tensor:
    """A copy on the parameter's device.

    The fused optimiser walks over memory: moments must lie as their parameter does.
    """
    if moment.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
    return moment.to(parameter.device)
