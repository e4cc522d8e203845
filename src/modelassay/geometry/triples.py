"""Triples: directions that lie in the plane of two others, so that sparse codes are not unique.

If ``f3 = (f2 - alpha f1) / n``, then ``f1 + f2 = (1 + alpha) f1 + n f3``: two codes with two
active latents each decode to the same activation, and nothing in it says which is right.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ValueRangeError

_BLOCK_ENTRIES = 2**20  # entries of a block of partial cosines: 4 MiB in float32 (ours)
_GRAM_ENTRIES = 2**26  # a table of all cosines that is kept: 256 MiB in float32 (ours)
_PARALLEL = 1e-6  # two directions with 1 - g^2 below it span a line, not a plane (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Triples:
    """For every direction the plane of two others that it lies nearest to."""

    members: Int[Tensor, "latent 2"]
    """The two others, ``f1`` and ``f2``."""
    coefficients: Float[Tensor, "latent 2"]
    """``beta`` in ``f3 ~ beta_1 f1 + beta_2 f2``, for unit directions."""
    residuals: Float[Tensor, " latent"]
    """Distance of the unit direction from the plane: 0 is an exact triple, 1 is orthogonal."""

    @property
    def alphas(self) -> Float[Tensor, " latent"]:
        """``alpha = -beta_1 / beta_2`` with the members ordered so that ``beta_2 > 0``.

        The larger coefficient is beta_2; NaN where both are negative: no two non-negative codes
        with two active latents decode to the same then.
        """
        small, large = self.coefficients.amin(1), self.coefficients.amax(1)
        return torch.where(large > 0, -small / large, torch.nan)


def find_triples(directions: Float[Tensor, "latent d"], *, neighbours: int = 8) -> Triples:
    """The plane of two other directions that every direction lies nearest to.

    With cosines g between unit directions, the squared distance of f3 from the plane of f1 and f2
    is::

        r^2 = 1 - g13^2 - (g23 - g12 g13)^2 / (1 - g12^2)  =  det G(1, 2, 3) / det G(1, 2)

    One of the two is looked for among the `neighbours` directions with the largest |g13|, the
    other among all: the result is exact wherever the better aligned member is among them. Of three
    lines in a plane two lie within 60 degrees, so that two rows of a triple have a member with
    |cosine| >= 1/2; what is found for them is tried for the third. Costs ``F^2 (d + neighbours)``
    products, in bounded memory.

    Args:
        directions: need not have unit norm; one of zeros has residual 1.
        neighbours: candidates for the better aligned member. On random dictionaries 8 find
            planes as near as 128 do (measured; d = 64 and 256).

    Raises:
        ValueRangeError: if there are fewer than three directions, or `neighbours` is below 1.
    """
    count = len(directions)
    if count < 3:
        raise ValueRangeError(f"Triples need at least 3 directions; got {count}. Pass more.")
    if neighbours < 1:
        raise ValueRangeError(f"neighbours must be at least 1; got {neighbours}. Pass 8.")
    unit = functional.normalize(directions.float(), dim=1)
    gram = unit @ unit.T if count * count <= _GRAM_ENTRIES else None
    neighbours = min(neighbours, count - 1)
    block = max(1, _BLOCK_ENTRIES // (neighbours * count))
    found = [
        _nearest_planes(unit, gram, rows, neighbours) for rows in torch.arange(count).split(block)
    ]
    first, second = (torch.cat(part) for part in zip(*found, strict=True))
    members, coefficients, residuals = _for_all_three(directions, first, second)
    return Triples(
        members=members.cpu(),
        coefficients=coefficients.float().cpu(),
        residuals=residuals.float().cpu(),
    )


def plane_fit(
    third: Float[Tensor, "row d"], first: Float[Tensor, "row d"], second: Float[Tensor, "row d"]
) -> tuple[Float[Tensor, "row 2"], Float[Tensor, " row"]]:
    """Least-squares coefficients of unit rows on two others, and the distance that is left.

    Solved by elimination: also for nearly parallel members; for parallel ones the second
    coefficient is 0.
    """
    g12, g13, g23 = ((a * b).sum(1) for a, b in ((first, second), (first, third), (second, third)))
    left = 1 - g12.square()
    beta_2 = torch.where(left > _PARALLEL, (g23 - g12 * g13) / left.clamp(min=_PARALLEL), 0.0)
    beta_1 = g13 - g12 * beta_2
    residual = (third - beta_1[:, None] * first - beta_2[:, None] * second).norm(dim=1)
    # A direction of zeros is near no plane.
    residual = torch.where(third.square().sum(1) > 0, residual, 1.0)
    return torch.stack([beta_1, beta_2], 1), residual


def _nearest_planes(
    unit: Tensor, gram: Tensor | None, rows: Tensor, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Members of the best plane for some rows."""
    own = torch.arange(len(rows))
    cosines = unit[rows] @ unit.T  # [row, direction]
    cosines[own, rows] = 0
    ranked = cosines.abs()
    ranked[own, rows] = -1
    firsts = ranked.topk(neighbours, dim=1).indices  # [row, neighbour]
    g13 = cosines.gather(1, firsts)[:, :, None]
    g12 = gram[firsts] if gram is not None else unit[firsts] @ unit.T  # [row, neighbour, direction]
    left = 1 - g12.square()
    gained = (cosines[:, None, :] - g12 * g13).square().div_(left.clamp(min=_PARALLEL))
    gained.masked_fill_(left <= _PARALLEL, 0)
    gained.scatter_(2, firsts[:, :, None], -1)  # three different directions
    gained[own, :, rows] = -1
    explained = (gained + g13.square()).flatten(1)
    best = explained.argmax(1)
    return firsts[own, best // len(unit)], best % len(unit)


def _for_all_three(
    directions: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest plane of every row, where each found plane is tried for its three directions."""
    # In float64: residuals near 0 are differences of numbers near 1.
    exact = functional.normalize(directions.double(), dim=1)
    own = torch.arange(len(exact), device=exact.device)
    orders = ((own, first, second), (first, own, second), (second, own, first))
    tried = torch.cat([torch.stack(order) for order in orders], 1)  # [3, candidate]
    coefficients, residuals = plane_fit(*(exact[part] for part in tried))
    # Sorted by direction, and by residual within one: the first of each is its best.
    ranked = residuals.argsort(stable=True)
    ranked = ranked[tried[0, ranked].argsort(stable=True)]
    counts = torch.bincount(tried[0], minlength=len(exact))
    best = ranked[counts.cumsum(0) - counts]
    return tried[1:, best].T, coefficients[best], residuals[best]
