"""What planted features detect: directions that the context moves and the last tokens do not."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus

_HISTORY = 3  # tokens, the current one included: what the question "written" takes for given
_CREDIBILITY = 3.0  # tokens at which a group's own mean weighs half (ours)
_COMPUTED_DIMENSIONS = 48  # of the stream, in which triggers point (ours)


@dataclass(frozen=True, kw_only=True, eq=False)
class Triggers:
    """Feature p fires where ``directions[p] . x > thresholds[p]``."""

    directions: Float[Tensor, "feature d"]
    thresholds: Float[Tensor, " feature"]
    excess: Float[Tensor, " feature"]
    """Mean of ``directions . x - thresholds`` where a feature fires."""


def draw_triggers(
    x: Float[Tensor, "token d"],
    histories: Int[Tensor, "token history"],
    rates: Float[Tensor, " feature"],
    partners: Int[Tensor, " feature"],
    *,
    likeness: float,
    generator: torch.Generator,
) -> Triggers:
    """Random directions among those that the last tokens predict least, with their quantiles.

    With S the covariance of x and R that of what the last one, two and three tokens leave
    unpredicted of it, directions are drawn among the leading generalised eigenvectors of
    ``R v = λ S v``: of a direction, λ is the share of its variance that is not a look-up. Their
    projections have unit variance, and those of two partners correlate by `likeness`.

    Args:
        x: what the features' neurons read.
        histories: the current token, the one before, and so on; -1 before the context.
        rates: share of tokens on which each fires.
        partners: of each feature, an earlier one that it resembles, or -1.
        likeness: correlation of partners.
        generator: for all draws.
    """
    x = x.double()
    centred = x - x.mean(0)
    left = unpredicted(centred, histories)
    basis = _computed_basis(centred.T @ centred / len(x), left.T @ left / len(x))
    weights = torch.randn(len(rates), basis.shape[1], generator=generator, dtype=torch.float64)
    weights = torch.nn.functional.normalize(weights, dim=1)
    for feature, partner in enumerate(partners.tolist()):
        if partner >= 0:
            mine = weights[feature] - (weights[feature] @ weights[partner]) * weights[partner]
            mine = (1 - likeness**2) ** 0.5 * torch.nn.functional.normalize(mine, dim=0)
            weights[feature] = likeness * weights[partner] + mine
    directions = weights @ basis.T
    z = x @ directions.T
    ranked = z.sort(dim=0, descending=True).values
    count = (rates * len(x)).round().long().clamp(min=1)
    thresholds = ranked.gather(0, count[None])[0]
    excess = torch.stack([ranked[:n, p].mean() for p, n in enumerate(count.tolist())]) - thresholds
    return Triggers(
        directions=directions.float(), thresholds=thresholds.float(), excess=excess.float()
    )


def token_histories(contexts: TokenizedCorpus) -> Int[Tensor, "token history"]:
    """The last tokens of every measured one: itself, the one before, the one before that."""
    context, position = contexts.measured.nonzero().unbind(1)
    padded = torch.nn.functional.pad(contexts.tokens, (_HISTORY - 1, 0), value=-1)
    back = [padded[context, position + _HISTORY - 1 - lag] for lag in range(_HISTORY)]
    return torch.stack(back, dim=1)


def unpredicted(
    x: Float[Tensor, "token d"], histories: Int[Tensor, "token history"]
) -> Float[Tensor, "token d"]:
    """What the last tokens leave unpredicted of centred x.

    Each token is predicted by the mean of the *other* tokens with the same history, shrunk to the
    prediction from one token less: by the current token, then the last two, then the last three.
    """
    prediction = torch.zeros_like(x)
    for length in range(1, histories.shape[1] + 1):
        _, group = histories[:, :length].unique(dim=0, return_inverse=True)
        sums = x.new_zeros(int(group.max()) + 1, x.shape[1]).index_add_(0, group, x)
        others = (torch.bincount(group)[group] - 1).to(x.dtype)[:, None]
        mean = (sums[group] - x) / others.clamp(min=1)
        weight = others / (others + _CREDIBILITY)
        prediction = weight * mean + (1 - weight) * prediction
    return x - prediction


def _computed_basis(
    covariance: Float[Tensor, "d d"], left: Float[Tensor, "d d"]
) -> Float[Tensor, "d kept"]:
    """Leading generalised eigenvectors, of unit variance and uncorrelated."""
    values, vectors = torch.linalg.eigh(covariance)
    # Directions in which nothing varies would make the quotient noise.
    kept = values > 1e-4 * values.mean()
    whiten = vectors[:, kept] / values[kept].sqrt()
    shares, turned = torch.linalg.eigh(whiten.T @ left @ whiten)
    del shares  # in ascending order
    return whiten @ turned[:, -min(_COMPUTED_DIMENSIONS, turned.shape[1]) :]
