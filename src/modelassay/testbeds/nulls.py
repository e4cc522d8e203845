"""What chance matches: dictionaries of the same size whose directions nobody fitted."""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.decompositions.recipes import unit_rows
from modelassay.decompositions.selection import topk
from modelassay.testbeds.scores import correlation, cosine, match

_DRAWS = 3  # random dictionaries of a kind, whose mean match is its null (ours)


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
    centred = activations - activations.mean(0)
    found: list[float] = []
    for rows in _directions(centred, width, seed):
        projections = [centred @ draw.T for draw in rows]
        found.append(_mean_match(projections, scalars))
        if l0 < width:
            sparse = [_largest(values, max(1, l0)) for values in projections]
            found.append(_mean_match(sparse, scalars))
    return max(found)


def null_match_of_directions(
    activations: Float[Tensor, "input d"],
    covectors: Float[Tensor, "feature d"],
    *,
    width: int,
    seed: int,
) -> float:
    """The same for match by |cosine| of directions."""
    centred = activations - activations.mean(0)
    return max(
        sum(match(cosine(draw, covectors)) for draw in rows) / len(rows)
        for rows in _directions(centred, width, seed)
    )


def _directions(centred: Tensor, width: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Draws of random unit rows: isotropic ones, and some with the activations' covariance."""
    d = centred.shape[1]
    isotropic, coloured = (
        [unit_rows(width, d, derived(seed, "null", kind, i)).to(centred) for i in range(_DRAWS)]
        for kind in ("isotropic", "covariance")
    )
    jitter = 1e-6 * centred.square().mean() * torch.eye(d).to(centred)
    root = torch.linalg.cholesky(centred.T @ centred / len(centred) + jitter)
    return isotropic, [torch.nn.functional.normalize(draw @ root.T, dim=1) for draw in coloured]


def _largest(values: Tensor, k: int) -> Tensor:
    kept, indices = topk(values, k)
    return torch.zeros_like(values).scatter(1, indices, kept.clamp(min=0))


def _mean_match(draws: list[Tensor], scalars: Tensor) -> float:
    return sum(match(correlation(values, scalars)) for values in draws) / len(draws)
