"""How well readers with a fixed budget do on a space, and what share of that a knock-off keeps.

    G_k = (perf(K_k) - perf(K0)) / (perf(real) - perf(K0))

With G_2 >= 0.95, what is co-activated explains the geometry that the readers use: "superposition
suffices". A reader's performance is its R^2 on held-out rows, not below 0.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, ValueRangeError

Reader = Literal["ridge", "mlp"]
SUFFICES = 0.05
"""Superposition suffices iff 1 - G_2 is below it."""
_RIDGE = 1e-3  # penalty, as a share of the inputs' mean variance (ours)
_HIDDEN, _STEPS, _LEARNING_RATE = 32, 300, 1e-2  # the budget of the MLP, whatever the space (ours)


def predictions(
    reader: Reader,
    x: Float[Tensor, "row d"],
    labels: Float[Tensor, "_ label"],
    wanted: Float[Tensor, "other d"],
    generator: torch.Generator,
) -> Float[Tensor, "other label"]:
    """Fit a reader on some rows and apply it to others.

    Args:
        reader: "ridge", linear with a bias, or "mlp", one hidden layer of 32 ReLUs trained for
            300 full-batch steps.
        x: activations to fit on.
        labels: theirs.
        wanted: activations to predict for.
        generator: of the MLP's initial weights.

    Raises:
        ShapeError: if activations and labels differ in number.
    """
    if len(x) != len(labels):
        raise ShapeError(
            f"There must be one label per row; got {len(x)} rows and {len(labels)} labels. "
            "Pass the same inputs for both."
        )
    mean, scale = x.mean(0), x.var(0, correction=0).mean().sqrt().clamp(min=1e-12)
    centre = labels.mean(0)
    x, wanted, labels = (x - mean) / scale, (wanted - mean) / scale, labels - centre
    fit = _ridge if reader == "ridge" else _mlp
    return fit(x, labels, wanted, generator) + centre


def _ridge(x: Tensor, labels: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    del generator
    x, labels, wanted = x.double(), labels.double(), wanted.double()
    gram = x.T @ x / len(x) + _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    return (wanted @ torch.linalg.solve(gram, x.T @ labels / len(x))).float()


def _mlp(x: Tensor, labels: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    d, outputs = x.shape[1], labels.shape[1]
    weights = [
        nn.Parameter(torch.randn(d, _HIDDEN, generator=generator) / math.sqrt(d)),
        nn.Parameter(torch.zeros(_HIDDEN)),
        nn.Parameter(torch.randn(_HIDDEN, outputs, generator=generator) / math.sqrt(_HIDDEN)),
    ]

    def read(rows: Tensor) -> Tensor:
        return (rows @ weights[0] + weights[1]).relu() @ weights[2]

    optimiser = torch.optim.AdamW(weights, lr=_LEARNING_RATE)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        (read(x) - labels).square().mean().backward()
        optimiser.step()
    return read(wanted).detach()


def performance(predicted: Float[Tensor, "row label"], labels: Float[Tensor, "row label"]) -> float:
    """R^2 over all labels, not below 0.

    Raises:
        ValueRangeError: if the labels are constant.
    """
    variance = float((labels - labels.mean(0)).square().sum())
    if variance <= 0:
        raise ValueRangeError(
            f"Labels must vary; got {len(labels)} rows of the same. Hold other items out."
        )
    return max(0.0, 1 - float((predicted - labels).square().sum()) / variance)


def usable_geometry(found: float, *, random: float, real: float) -> float:
    """G: the share of the usable geometry that a knock-off keeps; NaN if there is none.

    Args:
        found: a reader's performance on the knock-off.
        random: its performance on K0.
        real: its performance on the real space.
    """
    if real <= random:
        return math.nan
    return (found - random) / (real - random)


def superposition_suffices(g2: float) -> bool:
    """Whether what is co-activated explains what readers use: ``1 - G_2 < 0.05``."""
    return 1 - g2 < SUFFICES
