"""AUROC: how well a quantity tells two known classes apart, and how sure that is."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import TooFewTokensError
from modelassay.evidence.intervals import percentile_interval, resampling_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Auroc:
    """Chance that a random member of the first class has the larger value, ties counted half."""

    value: float
    low: float
    """Lower end of the 95 % interval; NaN with fewer than five clusters."""
    high: float
    n_positive: int
    n_negative: int
    measured: float
    """Share of both classes that has a value at all."""


def auroc(
    values: Float[Tensor, " item"],
    positive: Bool[Tensor, " item"],
    cluster: Int[Tensor, " item"],
    generator: torch.Generator,
) -> Auroc:
    """Area under the ROC curve, with a bootstrap over clusters.

    ``P(v+ > v-) + P(v+ = v-) / 2`` over pairs of a positive and a negative item. A NaN says
    nothing: every pair with it counts half, so that leaving out the hard cases gains nothing.

    Args:
        values: one number per item; NaN where there is none.
        positive: the class of each item.
        cluster: items of one cluster are resampled together: they are not independent.
        generator: for the bootstrap.

    Raises:
        TooFewTokensError: if one of the classes is empty.

    Reference: Hanley & McNeil 1982 (the area as a probability).
    """
    wins = _wins(values[positive], values[~positive])
    if wins.numel() == 0:
        raise TooFewTokensError(
            f"AUROC needs items of both classes; got {wins.shape[0]} positive and {wins.shape[1]} "
            "negative. Measure more items."
        )
    owner = torch.unique(cluster, return_inverse=True)[1]
    weights = resampling_weights(int(owner.max()) + 1, generator)
    first, second = weights[:, owner[positive]], weights[:, owner[~positive]]
    # A resample without one of the classes has no area: 0/0 is NaN, which the interval leaves out.
    replicates = ((first @ wins) * second).sum(1) / (first.sum(1) * second.sum(1))
    if weights.shape[1] < _MIN_CLUSTERS:
        replicates = replicates.fill_(torch.nan)
    interval = percentile_interval(replicates.float()[:, None])
    return Auroc(
        value=float(wins.mean()),
        low=float(interval.low[0]),
        high=float(interval.high[0]),
        n_positive=wins.shape[0],
        n_negative=wins.shape[1],
        measured=float((~values.isnan()).double().mean()),
    )


_MIN_CLUSTERS = 5  # below, a bootstrap is too narrow (as with documents)


def _wins(
    positive: Float[Tensor, " positive"], negative: Float[Tensor, " negative"]
) -> Float[Tensor, "positive negative"]:
    """1 where the positive is larger, 1/2 for ties and where either is NaN."""
    difference = positive.double()[:, None] - negative.double()[None, :]
    # Infinite minus infinite of one sign is a tie, not missing.
    difference = torch.where(positive[:, None] == negative[None, :], 0.0, difference)
    return (difference.sign() / 2 + 0.5).nan_to_num(nan=0.5)
