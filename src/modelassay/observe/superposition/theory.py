"""Closed-form losses of the smallest toy models, and the phases that they predict.

Independent features of density p; the first ones have importance 1, the extra one r. Each
candidate is an arrangement of unit columns whose missing features are answered by their mean p/2.
With ``v = p/3 - p^2/4``, the variance of a feature:

    n = 2, m = 1:  (1, 0) ignores the extra feature       r v
                   (0, 1) gives it the dimension          v
                   (1, -1) antipodal, biases 0            (1 + r) p^2 / 6
    n = 3, m = 2:  W orthogonal to (0,0,1)                r v
                   (1,0,0)                                v
                   (0,1,1): extra and another antipodal   (1 + r) p^2 / 6
                   (1,1,0): the others antipodal          p^2 / 3

Two antipodal features cost something only if both are on: the larger one wins, and the error is
``E min(x,y)^2 (1 + r) = p^2 (1 + r) / 6``. So superposition beats ignoring for
``p < 2r / (1 + 2.5 r)``, and beats a dimension of its own for ``p < 2 / (2.5 + r)``; both are 4/7
for r = 1. Candidates are no optima: trained antipodal columns are shorter than 1 and have positive
biases, and at r = 1 beat ignoring up to a density of about 0.7. Set-up of
Elhage et al. (2022); the expectations were worked out here.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError

CANDIDATES: dict[tuple[int, int], tuple[str, ...]] = {
    (2, 1): ("ignored", "dedicated", "superposition"),
    (3, 2): ("ignored", "dedicated", "superposition", "others in superposition"),
}
"""What happens to the extra feature, by (features, dimensions)."""

Grid = Float[Tensor, "*grid"]


def variance(density: Grid) -> Grid:
    """``p/3 - p^2/4``."""
    return density / 3 - density.square() / 4


def candidate_losses(
    density: Grid, importance: Grid, *, n_features: int, n_hidden: int
) -> Float[Tensor, "*grid candidate"]:
    """The loss of every candidate, in the order of `CANDIDATES`.

    Raises:
        ValueRangeError: for another size than (2, 1) and (3, 2).
    """
    if (n_features, n_hidden) not in CANDIDATES:
        raise ValueRangeError(
            "Closed forms must be of 2 features in 1 dimension or 3 in 2; got "
            f"{n_features} in {n_hidden}. Train other sizes with `train`."
        )
    alone = variance(density)
    both = density.square() / 6
    losses = [importance * alone, alone.expand_as(importance * alone), (1 + importance) * both]
    if n_features == 3:
        losses.append((2 * both).expand_as(losses[0]))
    return torch.stack(losses, -1)


def predicted_phase(
    density: Grid, importance: Grid, *, n_features: int, n_hidden: int
) -> Int[Tensor, "*grid"]:
    """The number of the cheapest candidate."""
    losses = candidate_losses(density, importance, n_features=n_features, n_hidden=n_hidden)
    return losses.argmin(-1)


def boundary(importance: float) -> float:
    """The density below which superposition is the cheapest of the three, for n = 2, m = 1."""
    return min(2 * importance / (1 + 2.5 * importance), 2 / (2.5 + importance))
