"""What chance matches: dictionaries of the same size whose directions nobody fitted."""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.decompositions.recipes import unit_rows
from modelassay.decompositions.selection import topk
from modelassay.testbeds.inner_products import cross
from modelassay.testbeds.scores import correlation_with, cosine, match, standardised

_DRAWS = 3  # random dictionaries of a kind, whose mean match is its null (ours)
_MATCHED = 64  # directions matched in all, at least: one alone varies from draw to draw (ours)
_TINY = 1e-24


def null_match_of_values(
    activations: Float[Tensor, "input d"],
    scalars: Float[Tensor, "input feature"],
    *,
    width: int,
    l0: int,
    seed: int,
) -> float:
    """Match by correlation that random dictionaries of `width` latents reach.

    Directions are isotropic, or drawn from the activations' covariance; codes are the projections
    of the centred activations, and, if `l0` is below the width, also those projections with all
    but the `l0` largest set to zero. The null is the largest mean among these kinds.

    Args:
        activations: at the interventional inputs.
        scalars: of the truth, on the same inputs.
        width: latents of the decomposition that is compared.
        l0: its mean number of active latents.
        seed: of the draws.
    """
    standards = [standardised(scalars)]
    found = nulls_of_projections(activations, standards, width=width, seed=seed)
    if l0 < width:
        found += nulls_of_largest(activations, standards, width=width, l0=l0, seed=seed)
    return max(found)


def nulls_of_projections(
    activations: Float[Tensor, "input d"],
    standards: Sequence[Float[Tensor, "input _feature"]],
    *,
    width: int,
    seed: int,
) -> list[float]:
    """The part of that null which does not depend on `l0`, for several `standardised` truths."""
    centred = activations - activations.mean(0)
    # Correlations of projections follow from covariances: no projection need be computed.
    covariance = cross(centred, centred)
    with_scalars = [cross(centred, standard) for standard in standards]

    def matches(draw: Tensor) -> list[float]:
        rows = draw.double()
        length = ((rows @ covariance) * rows).sum(1, keepdim=True).clamp(min=_TINY).sqrt()
        return [match((rows @ each / length).abs().clamp(max=1).float()) for each in with_scalars]

    return _largest_means([map(matches, draws) for draws in _directions(centred, width, seed)])


def nulls_of_largest(
    activations: Float[Tensor, "input d"],
    standards: Sequence[Float[Tensor, "input _feature"]],
    *,
    width: int,
    l0: int,
    seed: int,
) -> list[float]:
    """The other part: all but the `l0` largest projections of an input are set to zero."""
    centred = activations - activations.mean(0)

    def matches(draw: Tensor) -> list[float]:
        values = _largest(centred @ draw.T, max(1, l0))
        return [match(correlation_with(values, standard)) for standard in standards]

    return _largest_means([map(matches, draws) for draws in _directions(centred, width, seed)])


def _largest_means(kinds: Iterable[Iterable[list[float]]]) -> list[float]:
    """From kind, draw and truth to truth: the mean over draws, of the kind where it is largest."""
    means = [[sum(draws) / len(draws) for draws in zip(*kind, strict=True)] for kind in kinds]
    return [max(of_truth) for of_truth in zip(*means, strict=True)]


def null_match_of_directions(
    activations: Float[Tensor, "input d"],
    covectors: Float[Tensor, "feature d"],
    *,
    width: int,
    seed: int,
) -> float:
    """The same for match by |cosine| of directions."""
    centred = activations - activations.mean(0)
    draws = max(_DRAWS, math.ceil(_MATCHED / len(covectors)))
    return max(
        sum(match(cosine(draw, covectors)) for draw in rows) / len(rows)
        for rows in _directions(centred, width, seed, draws)
    )


def _directions(
    centred: Tensor, width: int, seed: int, draws: int = _DRAWS
) -> tuple[list[Tensor], list[Tensor]]:
    """Draws of random unit rows: isotropic ones, and some with the activations' covariance."""
    d = centred.shape[1]
    isotropic, coloured = (
        [unit_rows(width, d, derived(seed, "null", kind, i)).to(centred) for i in range(draws)]
        for kind in ("isotropic", "covariance")
    )
    # In float64: activations may fill a subspace only, where rounding would outweigh the jitter.
    wide = centred.double()
    jitter = 1e-6 * wide.square().mean() * torch.eye(d).to(wide)
    root = torch.linalg.cholesky(wide.T @ wide / len(wide) + jitter).to(centred)
    return isotropic, [torch.nn.functional.normalize(draw @ root.T, dim=1) for draw in coloured]


def _largest(values: Tensor, k: int) -> Tensor:
    kept, indices = topk(values, k)
    return torch.zeros_like(values).scatter(1, indices, kept.clamp(min=0))
