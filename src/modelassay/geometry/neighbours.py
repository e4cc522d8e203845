"""Which directions of a dictionary lie nearest to each other, beside what chance gives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ValueRangeError

_BLOCK = 1024  # rows of the cosine table at a time
_N_NULL = 1024  # random directions whose nearest neighbour is looked up


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """The nearest directions by cosine, nearest first."""

    indices: Int[Tensor, "latent rank"]
    cosines: Float[Tensor, "latent rank"]
    null: float
    """Median nearest-neighbour cosine among as many random directions of the same dimension."""
    null_highest: float
    """The highest of them: a cosine above it does not come about by chance."""


def nearest_neighbours(
    directions: Float[Tensor, "latent d_out"], generator: torch.Generator, *, count: int = 5
) -> Neighbours:
    """The `count` directions with the highest cosine to each direction.

    Args:
        directions: need not have unit norm; a direction of zeros has cosine 0 with all.
        generator: draws the random directions of the null.
        count: neighbours per latent; at most one less than there are directions.

    Raises:
        ValueRangeError: if there are fewer than two directions.
    """
    n, d = directions.shape
    if n < 2:
        raise ValueRangeError(
            f"Neighbours need at least 2 directions; got {n}. Widen the dictionary."
        )
    cosines, indices = _nearest(directions, torch.arange(n), min(count, n - 1))
    random = torch.randn(n, d, generator=generator)
    queries = torch.arange(min(n, _N_NULL))
    null, _ = _nearest(random, queries, 1)
    return Neighbours(
        indices=indices,
        cosines=cosines,
        null=float(null.median()),
        null_highest=float(null.max()),
    )


def _nearest(
    directions: Float[Tensor, "latent d_out"], queries: Int[Tensor, " query"], count: int
) -> tuple[Float[Tensor, "query rank"], Int[Tensor, "query rank"]]:
    unit = functional.normalize(directions.float(), dim=1)
    found = []
    for block in queries.split(_BLOCK):
        cosines = unit[block] @ unit.T
        cosines[torch.arange(len(block)), block] = -torch.inf
        found.append(cosines.topk(count, dim=1))
    return (
        torch.cat([part.values for part in found]).cpu(),
        torch.cat([part.indices for part in found]).cpu(),
    )
