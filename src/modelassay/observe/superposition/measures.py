"""What one reads off the weights of toy models.

    interference_i = sum_{j != i} (What_i . W_j)^2
    dimensionality D_i = |W_i|^2 / sum_j (What_i . W_j)^2        (j runs over i as well)
    dimensions per feature D* = m / |W|_F^2

D_i is the share of a dimension that a feature has (Elhage et al. 2022). Features that are packed
alike have the fraction of their polytope: a digon 1/2, a pentagon 2/5. The sum of D_i is at most
the number of dimensions (for unit vectors; m if they fill the space evenly).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Encoder = Float[Tensor, "*instance hidden feature"]
PerFeature = Float[Tensor, "*instance feature"]

_SMALL = 1e-6  # norms below this count as this: a feature that is not represented has D = 0
REPRESENTED = 0.5  # of a norm: a feature that is represented (ours)
_LINKED = 0.15  # |cosine| of features of one polytope (ours)
_SPANNED = 0.25  # of the largest singular value: a dimension that a polytope fills (ours)

FRACTIONS: dict[str, float] = {
    "own dimension": 1.0,
    "tetrahedron": 3 / 4,
    "triangle": 2 / 3,
    "digon": 1 / 2,
    "nine points on a 3-sphere": 4 / 9,
    "pentagon": 2 / 5,
    "square antiprism": 3 / 8,
    "not represented": 0.0,
}
"""Dimensionalities at which trained features gather."""

_NAMES = {
    (1, 1): "own dimension",
    (2, 1): "digon",
    (3, 2): "triangle",
    (4, 3): "tetrahedron",
    (5, 2): "pentagon",
    (8, 3): "square antiprism",
    (9, 4): "nine points on a 3-sphere",
}


def norms(encoder: Encoder) -> PerFeature:
    """``|W_i|``: about 1 for a feature that is represented, 0 for one that is not."""
    return encoder.norm(dim=-2)


def interference(encoder: Encoder) -> PerFeature:
    """``sum_{j != i} (What_i . W_j)^2``; from 1 on, others excite it as strongly as itself."""
    products = _unit_products(encoder)
    return (products.square().sum(-1) - encoder.square().sum(-2)).clamp_min(0)


def dimensionality(encoder: Encoder) -> PerFeature:
    """``D_i``, the share of a dimension that each feature has."""
    products = _unit_products(encoder)
    squares = encoder.square().sum(-2)
    return squares / products.square().sum(-1).clamp_min(_SMALL**2)


def dimensions_per_feature(encoder: Encoder) -> Float[Tensor, "*instance"]:
    """``D* = m / |W|_F^2``; not a mean of D_i where norms differ from 1."""
    return encoder.shape[-2] / encoder.square().sum((-2, -1)).clamp_min(_SMALL)


def gram(encoder: Encoder) -> Float[Tensor, "*instance feature feature"]:
    """``W^T W``."""
    return encoder.mT @ encoder


def _unit_products(encoder: Tensor) -> Tensor:
    unit = encoder / encoder.norm(dim=-2, keepdim=True).clamp_min(_SMALL)
    return unit.mT @ encoder


def nearest_fraction(value: float, tolerance: float = 0.03) -> str:
    """The name of the fraction that a dimensionality lies at; "between" if none is that close."""
    name, fraction = min(FRACTIONS.items(), key=lambda item: abs(item[1] - value))
    return name if abs(fraction - value) <= tolerance else "between"


@dataclass(frozen=True, kw_only=True, slots=True)
class Polytope:
    """Features that interfere with each other and with no others."""

    name: str
    """Such as "pentagon"; "5 in 3 dimensions" where it has no name here."""
    features: tuple[int, ...]
    dimensions: int
    dimensionality: float
    """Mean of its features' D_i."""


def polytopes(weights: Float[Tensor, "hidden feature"]) -> tuple[Polytope, ...]:
    """The parts into which represented features fall, largest first.

    Two features are linked if the cosine between them is above 0.15 in size; a part is what links
    connect. Parts stand at right angles to each other: the tegum product of theirs is the whole.
    """
    chosen = (norms(weights) > REPRESENTED).nonzero().flatten()
    unit = torch.nn.functional.normalize(weights[:, chosen], dim=0)
    linked = (unit.T @ unit).abs() > _LINKED
    shares = dimensionality(weights)
    found: list[Polytope] = []
    left = set(range(len(chosen)))
    while left:
        part = _reachable(min(left), linked)
        left -= part
        members = sorted(part)
        values = torch.linalg.svdvals(unit[:, members])
        dimensions = int((values > _SPANNED * values[0]).sum())
        features = chosen[members]
        count = len(members)
        found.append(
            Polytope(
                name=_NAMES.get((count, dimensions), f"{count} in {dimensions} dimensions"),
                features=tuple(features.tolist()),
                dimensions=dimensions,
                dimensionality=float(shares[features].mean()),
            )
        )
    return tuple(sorted(found, key=lambda part: (-len(part.features), part.features)))


def _reachable(start: int, linked: Tensor) -> set[int]:
    seen, waiting = {start}, [start]
    while waiting:
        for other in linked[waiting.pop()].nonzero().flatten().tolist():
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def features_per_neuron(
    encoder: Float[Tensor, "instance hidden feature"],
) -> Float[Tensor, "instance hidden"]:
    """``(sum_i w_i^2)^2 / sum_i w_i^4``: 1 for a neuron of one feature, 2 for two equal ones."""
    squares = encoder.square()
    return squares.sum(-1).square() / squares.square().sum(-1).clamp_min(_SMALL**4)
