"""Which of two known truths did a decomposition find?

With truth sets A (features of the activations) and M (features of the model), similarity
``s_it`` of latent i and feature t, and the assignment of latents to features that is best one to
one::

    Match(T) = mean over t of s_{i(t), t}    (0 for a feature that no latent is left for)
    m~_T     = clip((Match(T) - null_T) / (1 - null_T), 0, 1)
    V        = m~_M / (m~_M + m~_A)                         NaN if both are 0
    S_graph  = mean over t of 1 / N_eff(t),   N_eff(t) = (sum_i C_ti)^2 / sum_i C_ti^2,
               C_ti = E over inputs where t is on of |z_i r_t . d_i|
    PAD      = P(a decomposition is nearer its own arm's model truth than the other arms')
    PAD~     = (PAD - 1/K) / (1 - 1/K)                      K arms; 0 is chance

Similarities are |Pearson correlation| on the interventional inputs, or |cosine| where a testbed
is about directions. Permuting or rescaling latents changes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modelassay.testbeds.inner_products import column_sums, cross

FOUND = 0.8
"""A corrected match above this counts as found, in `found` (science of the frame, section 12)."""
MISSED = 0.2
"""Below this a truth was not found."""
_TINY = 1e-12
_CANCELS = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a decomposition found in one arm."""

    match_model: float
    """m~_M in [0, 1]: how much of the model's features, beyond chance."""
    match_activations: float
    """m~_A in [0, 1]: how much of the activations' features, beyond chance."""
    s_graph: float
    """Mean over the model's features of 1 / effective number of latents; NaN where a testbed
    knows no covectors."""

    @property
    def v(self) -> float:
        """V in [0, 1]: 1 is the model's truth, 0 the activations'; NaN for neither."""
        return verdict_score(self.match_model, self.match_activations)

    @property
    def found(self) -> str:
        """ "model", "activations", "both", "neither" or "partly"."""
        if max(self.match_model, self.match_activations) < MISSED:
            return "neither"
        if min(self.match_model, self.match_activations) > FOUND:
            return "both"
        if self.match_model > FOUND and self.match_activations < MISSED:
            return "model"
        if self.match_activations > FOUND and self.match_model < MISSED:
            return "activations"
        return "partly"


def correlation(
    values: Float[Tensor, "input latent"], scalars: Float[Tensor, "input feature"]
) -> Float[Tensor, "latent feature"]:
    """|Pearson correlation| of every latent with every feature; 0 for a constant."""
    return correlation_with(values, standardised(scalars))


def correlation_with(
    values: Float[Tensor, "input latent"], standard: Float[Tensor, "input feature"]
) -> Float[Tensor, "latent feature"]:
    """The same for features that are `standardised` already."""
    floor, length = _lengths(values)
    # The columns of `standard` have mean 0, so that those of `values` need not be centred.
    product = cross(values, standard) / length.clamp(min=_TINY)[:, None]
    return torch.where((length > floor)[:, None], product, 0.0).abs().clamp(max=1).float()


def standardised(columns: Float[Tensor, "input feature"]) -> Float[Tensor, "input feature"]:
    """Columns of mean 0 and length 1 in double precision, or all zeros for a constant one."""
    floor, length = _lengths(columns)
    centred = columns.double() - columns.double().mean(0)
    return torch.where(length > floor, centred / length.clamp(min=_TINY), 0.0)


def _lengths(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Length of every centred column, and below which one it counts as constant."""
    sums, squares = column_sums(columns)
    # Where the mean is large beside the spread, their difference would be rounding.
    squares_centred = (squares - sums.square() / len(columns)).clamp(min=0)
    if bool((squares_centred < _CANCELS * squares).any()):
        squares_centred = columns.double().var(0, correction=0) * len(columns)
    # A constant column in float32 leaves rounding behind: it must not be blown up to length 1.
    return 1e-6 * squares.sqrt() + _TINY, squares_centred.sqrt()


def cosine(
    directions: Float[Tensor, "latent d"], features: Float[Tensor, "feature d"]
) -> Float[Tensor, "latent feature"]:
    """|cosine| of every direction with every feature's."""
    unit = torch.nn.functional.normalize
    return (unit(directions, dim=1) @ unit(features, dim=1).T).abs().clamp(max=1)


def match(similarity: Float[Tensor, "latent feature"]) -> float:
    """Mean over the features of the similarity to their latent, in the best one-to-one assignment.

    A feature that is left without a latent counts as 0.
    """
    rows, columns = linear_sum_assignment(similarity.double().cpu().numpy(), maximize=True)
    return float(similarity[rows, columns].double().sum()) / similarity.shape[1]


def corrected(found: float, null: float) -> float:
    """Match beyond chance: ``clip((found - null) / (1 - null), 0, 1)``; NaN for a null of 1."""
    if null >= 1:
        return math.nan
    return min(1.0, max(0.0, (found - null) / (1 - null)))


def verdict_score(match_model: float, match_activations: float) -> float:
    """V; NaN if nothing was found."""
    total = match_model + match_activations
    return match_model / total if total > 0 else math.nan


def graph_score(
    values: Float[Tensor, "input latent"],
    directions: Float[Tensor, "latent d"],
    covectors: Float[Tensor, "feature d"],
    active: Bool[Tensor, "input feature"],
) -> float:
    """S_graph: 1 if each mechanism is fed by one latent, 1/n if by n equal ones.

    A feature that no latent reaches, or that is never on, counts as 0: its mechanism has no node.
    """
    return float(graph_terms(values, directions, covectors, active).mean())


def graph_terms(
    values: Float[Tensor, "input latent"],
    directions: Float[Tensor, "latent d"],
    covectors: Float[Tensor, "feature d"],
    active: Bool[Tensor, "input feature"],
) -> Float[Tensor, " feature"]:
    """1 / N_eff of every feature; 0 where nothing reaches it."""
    size = cross(active, values.abs()) / active.sum(0).double().clamp(min=1)[:, None]
    contribution = size * (covectors.double() @ directions.double().T).abs()
    squares = contribution.square().sum(1)
    return torch.where(
        squares > 0, squares / contribution.sum(1).square().clamp(min=_TINY**2), 0.0
    ).float()


def discrimination(affinity: Sequence[Sequence[float]]) -> float:
    """PAD: how often row j (a decomposition made in arm j) is nearest to truth j; ties are split.

    Args:
        affinity: [arm of the decomposition][arm of the truth], higher is nearer.
    """
    return sum(own_arm_nearest(row, own) for own, row in enumerate(affinity)) / len(affinity)


def own_arm_nearest(affinities: Sequence[float], own: int) -> float:
    """1 if the own arm's truth is the nearest, 0 if another is, 1/n if n tie."""
    best = max(affinities)
    nearest = [index for index, value in enumerate(affinities) if value >= best - _TINY]
    return 1 / len(nearest) if own in nearest else 0.0


def beyond_chance(discriminated: float, n_arms: int) -> float:
    """PAD~ from PAD; NaN for a testbed with a single arm."""
    if n_arms < 2:
        return math.nan
    return (discriminated - 1 / n_arms) / (1 - 1 / n_arms)
