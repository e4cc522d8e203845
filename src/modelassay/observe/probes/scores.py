"""How well probabilities of classes fit the labels, with bootstrap intervals over groups.

All scores are functions of item weights, so that a resample of the groups costs a weighted pass
and no new prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

N_RESAMPLES = 1000
"""Enough for percentile intervals (Efron & Tibshirani 1993, section 13.3)."""
MIN_GROUPS = 5
"""Below this many groups no interval is given: a bootstrap of so few is too narrow (ours)."""
N_BINS = 10
"""Bins of the calibration error (Guo et al. 2017 use 15 for 10,000 items; we have fewer)."""
_CHUNK = 100  # resamples at a time: bounds the [resample, item] table

Weights = Float[Tensor, "resample item"]
WeightedStatistic = Callable[[Tensor], Tensor]
"""From weights [resample item] to the statistic of each resample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A value with its 95 % interval; NaN where there are too few groups."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores on test items. With more than two classes F1, AUROC and AP are means over classes."""

    accuracy: Measured
    f1: Measured
    """``2 TP / (2 TP + FP + FN)`` of class 1 at the likeliest class."""
    auroc: Measured
    """Chance that a random item of the class has the larger probability, ties counted half."""
    average_precision: Measured
    """``sum_n (R_n - R_{n-1}) P_n`` over thresholds."""
    ece: Measured
    """Expected calibration error: mean over bins of |accuracy - confidence|, weighted by items."""
    n_items: int
    n_groups: int


def scores_of(
    probabilities: Float[Tensor, "item class"],
    labels: Int[Tensor, " item"],
    groups: Int[Tensor, " item"],
    generator: torch.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
) -> Scores:
    """All scores of some predictions.

    Args:
        groups: items of one group are resampled together: they are not independent.
        generator: for the bootstrap.

    Reference: Efron 1979; Guo et al. 2017 (calibration error).
    """
    chosen = probabilities.argmax(1)
    n_classes = probabilities.shape[1]
    shown = [1] if n_classes == 2 else labels.unique().tolist()
    weights = group_weights(groups, generator, n_resamples)

    def mean_over_classes(statistic: Callable[[Tensor, int], Tensor]) -> WeightedStatistic:
        return lambda w: torch.stack([statistic(w, c) for c in shown]).nanmean(0)

    statistics: dict[str, WeightedStatistic] = {
        "accuracy": lambda w: w @ (chosen == labels).double() / w.sum(1),
        "f1": mean_over_classes(lambda w, c: weighted_f1(chosen == c, labels == c, w)),
        "auroc": mean_over_classes(
            lambda w, c: weighted_auroc(probabilities[:, c], labels == c, w)
        ),
        "average_precision": mean_over_classes(
            lambda w, c: weighted_average_precision(probabilities[:, c], labels == c, w)
        ),
        "ece": lambda w: weighted_ece(probabilities, labels, w),
    }
    measured = {name: measure(statistic, weights) for name, statistic in statistics.items()}
    return Scores(**measured, n_items=len(labels), n_groups=len(groups.unique()))


def group_weights(
    groups: Int[Tensor, " item"], generator: torch.Generator, n_resamples: int = N_RESAMPLES
) -> Weights:
    """How often each item counts: first as it is, then in resamples of whole groups.

    Only the first row if there are too few groups.
    """
    present, owner = groups.unique(return_inverse=True)
    as_it_is = torch.ones(1, len(groups), dtype=torch.float64)
    if len(present) < MIN_GROUPS:
        return as_it_is
    draws = torch.randint(len(present), (n_resamples, len(present)), generator=generator)
    counts = torch.zeros(n_resamples, len(present), dtype=torch.float64)
    counts.scatter_add_(1, draws, torch.ones(draws.shape, dtype=torch.float64))
    return torch.cat([as_it_is, counts[:, owner]])


def measure(statistic: WeightedStatistic, weights: Weights) -> Measured:
    """The statistic on the items as they are, and the central 95 % of its resamples."""
    values = torch.cat([statistic(part) for part in weights.split(_CHUNK)]).double()
    replicates = values[1:][~values[1:].isnan()]
    if 2 * len(replicates) < len(values):  # half of the resamples are not defined
        return Measured(value=float(values[0]), low=torch.nan, high=torch.nan)
    low, high = replicates.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Measured(value=float(values[0]), low=low, high=high)


def weighted_f1(
    chosen: Bool[Tensor, " item"], positive: Bool[Tensor, " item"], weights: Weights
) -> Float[Tensor, " resample"]:
    """F1 in each resample; 0 where the class is neither present nor chosen."""
    hits = weights @ (chosen & positive).double()
    errors = weights @ (chosen ^ positive).double()
    return 2 * hits / (2 * hits + errors).clamp(min=1e-12)


def weighted_auroc(
    values: Float[Tensor, " item"], positive: Bool[Tensor, " item"], weights: Weights
) -> Float[Tensor, " resample"]:
    """Area under the ROC curve in each resample; NaN where a class is missing.

    ``P(v+ > v-) + P(v+ = v-) / 2``. Reference: Hanley & McNeil 1982.
    """
    wins, losses = _by_threshold(values, positive, weights)
    below = losses.cumsum(1) - losses / 2
    return (wins * below).sum(1) / (wins.sum(1) * losses.sum(1))


def weighted_average_precision(
    values: Float[Tensor, " item"], positive: Bool[Tensor, " item"], weights: Weights
) -> Float[Tensor, " resample"]:
    """Average precision in each resample; NaN where the class is missing."""
    wins, losses = (part.flip(1) for part in _by_threshold(values, positive, weights))
    above = wins.cumsum(1)
    precision = above / (above + losses.cumsum(1)).clamp(min=1e-12)
    return (wins * precision).sum(1) / wins.sum(1)


def weighted_ece(
    probabilities: Float[Tensor, "item class"], labels: Int[Tensor, " item"], weights: Weights
) -> Float[Tensor, " resample"]:
    """Expected calibration error of the likeliest class, in bins of equal width."""
    confidence, chosen = probabilities.max(1)
    excess = (chosen == labels).double() - confidence
    bins = (confidence * N_BINS).long().clamp(max=N_BINS - 1)
    gaps = torch.zeros(len(weights), N_BINS, dtype=torch.float64)
    gaps.index_add_(1, bins, weights * excess)
    return gaps.abs().sum(1) / weights.sum(1)


def _by_threshold(
    values: Float[Tensor, " item"], positive: Bool[Tensor, " item"], weights: Weights
) -> tuple[Float[Tensor, "resample value"], Float[Tensor, "resample value"]]:
    """Weight of positive and of negative items at each distinct value, in ascending order."""
    distinct, place = values.unique(return_inverse=True)
    tables = []
    for side in (positive, ~positive):
        table = torch.zeros(len(weights), len(distinct), dtype=torch.float64)
        tables.append(table.index_add_(1, place[side], weights[:, side]))
    return tables[0], tables[1]
