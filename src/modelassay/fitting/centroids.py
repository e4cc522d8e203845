"""Centres of clusters: k-means in bounded memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import TooFewTokensError

_ROUNDS = 15  # of reassignment: ours; the centres need not be the best ones
_CHUNK_ENTRIES = 2**22  # distances held at once: ours


@torch.no_grad()
def centroids(
    points: Float[Tensor, "point d"],
    n: int,
    generator: torch.Generator,
    *,
    rounds: int = _ROUNDS,
) -> Float[Tensor, "{n} d"]:
    """Centres of n clusters, from n different random points by some rounds of Lloyd's algorithm.

    A centre to which no point is nearest moves to the point that is farthest from its own centre,
    the next such centre to the next farthest.

    Args:
        points: what is clustered.
        n: clusters.
        generator: on the CPU; draws the first centres.
        rounds: the most; they end early when no point changes its cluster.

    Raises:
        TooFewTokensError: if there are fewer points than clusters.

    Reference: Lloyd 1982, "Least squares quantization in PCM".
    """
    check_enough(points, n)
    first = torch.randperm(len(points), generator=generator)[:n]
    centres = points[first.to(points.device)].clone()
    before: Tensor | None = None
    for _ in range(rounds):
        nearest, distances = _nearest(points, centres)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        sizes = torch.bincount(nearest, minlength=n)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = sums / sizes.clamp(min=1).unsqueeze(1)
        empty = (sizes == 0).nonzero().squeeze(1)
        centres[empty] = points[distances.topk(len(empty)).indices]
    return centres


def check_enough(points: Float[Tensor, "point d"], n: int) -> None:
    """Refuse fewer points than what is to be made of them.

    Raises:
        TooFewTokensError: if so.
    """
    if len(points) < n:
        raise TooFewTokensError(
            f"There must be at least as many tokens as candidates, {n}; got {len(points)}. "
            "Harvest more, or ask for fewer candidates."
        )


def _nearest(
    points: Float[Tensor, "point d"], centres: Float[Tensor, "centre d"]
) -> tuple[Int[Tensor, " point"], Float[Tensor, " point"]]:
    """The nearest centre of every point, and the squared distance."""
    squares = centres.square().sum(1)
    rows = max(1, _CHUNK_ENTRIES // len(centres))
    found = [
        torch.addmm(squares, part, centres.t(), alpha=-2).min(1) for part in points.split(rows)
    ]
    distances = torch.cat([d for d, _ in found]) + points.square().sum(1)
    return torch.cat([nearest for _, nearest in found]), distances
