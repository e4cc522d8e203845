"""L2-penalised softmax regression by Newton's method, with a certificate of convergence.

The objective is convex, so that half the squared Newton decrement ``g^T H^-1 g / 2`` bounds, to
second order, how far the objective still lies above its minimum (Boyd & Vandenberghe 2004,
section 9.5). A fit whose bound stays large is refused and not returned.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.observe.probes.probe import LinearHead

GAP = 1e-9
"""Largest distance to the minimum that counts as converged, in nats per item (ours)."""
_MOST_STEPS = 60
_MOST_DENSE = 1500  # columns up to which the Hessian of two classes is built and solved directly
_MOST_CONJUGATE = 400
_SUFFICIENT = 1e-4  # share of the predicted decrease that a step must bring (Armijo's condition)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A minimum, and how near it is."""

    head: LinearHead
    gap: float
    """Half the squared Newton decrement, in nats per item."""
    steps: int


class _Problem:
    """``mean_i w_i (-log p(y_i | x_i)) + l2 / 2 |W|^2``; the bias is not penalised.

    With two classes there is one column of log-odds, else one column for each class.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, weights: Tensor, n: int, l2: float) -> None:
        ones = torch.ones(len(inputs), 1, dtype=torch.float64)
        self.inputs = torch.cat([inputs.double(), ones], 1)
        self.columns = 1 if n == 2 else n
        self.targets = torch.nn.functional.one_hot(labels, n).double()[:, -self.columns :]
        self.weights = (weights.double() / weights.double().sum())[:, None]
        self.penalty = torch.full((self.inputs.shape[1], 1), l2, dtype=torch.float64)
        self.penalty[-1] = 0

    def value(self, theta: Tensor) -> Tensor:
        logits = self.inputs @ theta
        padded = torch.cat([torch.zeros_like(logits), logits], 1) if self.columns == 1 else logits
        fit = padded.logsumexp(1, keepdim=True) - (self.targets * logits).sum(1, keepdim=True)
        return (self.weights * fit).sum() + (self.penalty * theta.square()).sum() / 2

    def shares(self, theta: Tensor) -> Tensor:
        logits = self.inputs @ theta
        return logits.sigmoid() if self.columns == 1 else logits.softmax(1)

    def gradient(self, theta: Tensor, shares: Tensor) -> Tensor:
        return self.inputs.T @ (self.weights * (shares - self.targets)) + self.penalty * theta

    def hessian_product(self, shares: Tensor, vector: Tensor) -> Tensor:
        change = self.inputs @ vector
        mean = (shares * change).sum(1, keepdim=True)
        curved = self.weights * shares * (change - mean)
        return self.inputs.T @ curved + self.penalty * vector

    def newton_step(self, shares: Tensor, gradient: Tensor) -> Tensor:
        if self.columns == 1 and len(gradient) <= _MOST_DENSE:
            curvature = self.weights * shares * (1 - shares)
            hessian = self.inputs.T @ (curvature * self.inputs)
            hessian.diagonal().add_(self.penalty[:, 0] + 1e-12)
            return -torch.linalg.solve(hessian, gradient)
        return -_conjugate_gradients(lambda v: self.hessian_product(shares, v), gradient)


def softmax_regression(
    inputs: Float[Tensor, "item width"],
    labels: Int[Tensor, " item"],
    *,
    n_classes: int,
    l2: float,
    weights: Float[Tensor, " item"] | None = None,
    start: LinearHead | None = None,
) -> Fitted:
    """Minimise ``mean_i w_i (-log p(y_i | x_i)) + l2 / 2 |W|^2`` to `GAP`.

    Args:
        inputs: scaled activations.
        l2: penalty on the weights, relative to the mean loss; above 0.
        weights: of the items; equal by default.
        start: a solution nearby, such as that of a larger penalty.

    Raises:
        ValueRangeError: if the penalty is not positive, or Newton's method did not get there.
    """
    if l2 <= 0:
        raise ValueRangeError(
            f"l2 must be above 0; got {l2}. Without a penalty separable classes have no optimum: "
            "use 1e-4 for a weak one."
        )
    weights = torch.ones(len(labels)) if weights is None else weights
    problem = _Problem(inputs, labels, weights, n_classes, l2)
    theta = torch.zeros(problem.inputs.shape[1], problem.columns, dtype=torch.float64)
    if start is not None:
        theta = torch.cat([start.weight, start.bias[None]])
    value, gap = problem.value(theta), torch.inf
    for step in range(_MOST_STEPS):
        shares = problem.shares(theta)
        gradient = problem.gradient(theta, shares)
        direction = problem.newton_step(shares, gradient)
        decrease = -float((gradient * direction).sum())
        gap = decrease / 2
        if gap <= GAP:
            head = LinearHead(weight=theta[:-1], bias=theta[-1])
            return Fitted(head=head, gap=max(0.0, gap), steps=step)
        theta, value = _line_search(problem, theta, value, direction, decrease)
    raise ValueRangeError(
        f"A logistic fit must come within {GAP} nats of its minimum; got {gap:.1e} after "
        f"{_MOST_STEPS} Newton steps. Raise l2, or leave out columns that are copies of others."
    )


def _line_search(
    problem: _Problem, theta: Tensor, value: Tensor, direction: Tensor, decrease: float
) -> tuple[Tensor, Tensor]:
    """Halve the step until it brings its share of the predicted decrease."""
    length = 1.0
    while length > 1e-10:
        moved = theta + length * direction
        there = problem.value(moved)
        if there <= value - _SUFFICIENT * length * decrease:
            return moved, there
        length /= 2
    return theta, value  # rounding hides the decrease: the next step's gap says whether it matters


def _conjugate_gradients(product: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """Solve ``H x = target`` well enough for a Newton step."""
    solution = torch.zeros_like(target)
    residual, along = target.clone(), target.clone()
    size = start = float(residual.square().sum())
    tolerance = start * min(1e-4, max(start, 1e-16))  # superlinear near the minimum
    for _ in range(_MOST_CONJUGATE):
        if size <= tolerance or size == 0:
            break
        image = product(along)
        step = size / float((along * image).sum())
        solution, residual = solution + step * along, residual - step * image
        previous, size = size, float(residual.square().sum())
        along = residual + size / previous * along
    return solution
