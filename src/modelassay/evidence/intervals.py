"""Intervals and tests: the bootstrap over documents, the signed-rank test, false discoveries.

Tokens of one document resemble each other, so the document is the unit that is resampled: an
interval over tokens would be too narrow by as much as they do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

N_RESAMPLES = 1000
"""Enough for percentile intervals (Efron & Tibshirani 1993, section 13.3)."""
MIN_DOCUMENTS = 5
"""Below this many documents no interval is given: a bootstrap of so few is too narrow (ours)."""
MIN_FIRINGS = 30
"""Below this many held-out firings a latent is not measured: a 95 % interval of a share of 1/2
from 30 draws already reaches 0.18 to each side (ours)."""
LEVEL = 0.95
_CHUNK = 100  # resamples at a time: bounds memory at wide dictionaries
_MAX_PAIRS = 2**23  # means of pairs at a time: 32 MiB in float32 (ours)

Statistic = Callable[..., Tensor]
"""From sums over documents, each [resample, column], to the quantity [resample, latent]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A 95 % interval per latent; NaN where there are too few documents."""

    low: Float[Tensor, " latent"]
    high: Float[Tensor, " latent"]


def resampling_weights(
    n_documents: int, generator: torch.Generator, n_resamples: int = N_RESAMPLES
) -> Float[Tensor, "resample document"]:
    """How often each document is drawn in each resample of all documents with replacement."""
    draws = torch.randint(n_documents, (n_resamples, n_documents), generator=generator)
    weights = torch.zeros(n_resamples, n_documents, dtype=torch.float64)
    return weights.scatter_add_(1, draws, torch.ones_like(weights))


def document_interval(
    tables: Sequence[Float[Tensor, "document _"]],
    statistic: Statistic,
    generator: torch.Generator,
) -> Interval:
    """Percentile interval of a function of sums, by resampling documents.

    The statistic is evaluated on `weights @ table` for each table of per-document sums, so a
    resample costs a matrix product and never touches the tokens again.

    Args:
        tables: per-document sums, float64, all with the same documents.
        statistic: maps the resampled sums, each [resample, column], to [resample, latent].

    Reference: Efron 1979; clusters resampled as in Davison & Hinkley 1997, section 3.8.
    """
    return percentile_interval(document_replicates(tables, statistic, generator))


def document_replicates(
    tables: Sequence[Float[Tensor, "document _"]],
    statistic: Statistic,
    generator: torch.Generator,
) -> Float[Tensor, "resample latent"]:
    """The statistic on `N_RESAMPLES` resamples of the documents; NaN if these are too few."""
    weights = resampling_weights(len(tables[0]), generator)
    replicates = torch.cat(
        [
            statistic(*(part @ table for table in tables)).to(torch.float32)
            for part in weights.split(_CHUNK)
        ]
    )
    return replicates if len(tables[0]) >= MIN_DOCUMENTS else replicates.fill_(torch.nan)


def percentile_interval(replicates: Float[Tensor, "resample latent"]) -> Interval:
    """The central 95 % of the replicates; NaN where fewer than half of them are defined."""
    ordered = replicates.T.contiguous().sort(dim=1).values  # NaN sorts last
    defined = (~ordered.isnan()).sum(1)
    last = (defined - 1).clamp(min=0)
    ends = []
    for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        index = (share * last).round().to(torch.int64)[:, None]
        end = ordered.gather(1, index)[:, 0]
        ends.append(torch.where(2 * defined >= len(replicates), end, torch.nan))
    return Interval(low=ends[0], high=ends[1])


def signed_rank_p_values(
    differences: Float[Tensor, "latent sample"],
) -> Float[Tensor, " latent"]:
    """Two-sided p-value that the differences are symmetric about 0; NaN marks a missing sample.

    The null distribution is exact where there are neither ties nor zeros, else the normal
    approximation with midranks. The one-sided p-value on the side of the estimate is half of it.

    Reference: Wilcoxon 1945.
    """
    p_values = torch.full((len(differences),), torch.nan)
    present = ~differences.isnan()
    for count in present.sum(1).unique().tolist():
        rows = (present.sum(1) == count).nonzero()[:, 0]
        if count == 0:
            continue
        block = differences[rows][present[rows]].view(len(rows), count).double().numpy()
        p_values[rows] = torch.from_numpy(_signed_rank(block)).float()
    return p_values


def _signed_rank(block: np.ndarray) -> np.ndarray:
    ordered = np.sort(np.abs(block), axis=1)
    tied = (ordered[:, 0] == 0) | (np.diff(ordered, axis=1) == 0).any(1)
    p_values = np.ones(len(block))  # all differences zero: no evidence at all
    exact, approximate = ~tied, tied & (block != 0).any(1)
    if exact.any():
        p_values[exact] = stats.wilcoxon(block[exact], axis=1, method="exact").pvalue
    if approximate.any():
        p_values[approximate] = stats.wilcoxon(
            block[approximate], axis=1, method="asymptotic", zero_method="zsplit"
        ).pvalue
    return p_values


def false_discovery_q_values(p_values: Float[Tensor, " latent"]) -> Float[Tensor, " latent"]:
    """Benjamini-Hochberg q-values over the latents with a p-value; NaN elsewhere.

    Reference: Benjamini & Hochberg 1995.
    """
    measured = ~p_values.isnan()
    q_values = torch.full_like(p_values, torch.nan)
    if measured.any():
        adjusted = stats.false_discovery_control(p_values[measured].double().numpy())
        q_values[measured] = torch.from_numpy(adjusted).to(p_values.dtype)
    return q_values


def pseudo_median(
    values: Float[Tensor, "latent sample"],
) -> tuple[Float[Tensor, " latent"], Interval]:
    """Hodges-Lehmann estimate of the centre of some samples, and its 95 % interval; NaN is missing.

    The median of the means of all pairs of samples. The interval is the signed-rank test turned
    round: it holds exactly those centres that the test does not reject, so it and the p-value never
    disagree. Below six samples no centre can be rejected and there is no interval.

    Reference: Hollander & Wolfe 1999, sections 3.2 and 3.3.
    """
    present = ~values.isnan()
    counts = present.sum(1)
    centre = torch.full((len(values),), torch.nan)
    low, high = centre.clone(), centre.clone()
    for count in counts.unique().tolist():
        if count == 0:
            continue
        first, second = torch.triu_indices(count, count)
        middle, rank = len(first) // 2, _critical_rank(count)
        rows = (counts == count).nonzero()[:, 0]
        for part in rows.split(max(1, _MAX_PAIRS // len(first))):
            block = values[part][present[part]].view(len(part), count).float()
            means = ((block[:, first] + block[:, second]) / 2).sort(dim=1).values
            centre[part] = (means[:, middle] + means[:, -1 - middle]) / 2
            if rank > 0:
                low[part], high[part] = means[:, rank - 1], means[:, -rank]
    return centre, Interval(low=low, high=high)


def _critical_rank(count: int) -> int:
    """The largest k with P(W < k) <= 2.5 % for the signed-rank statistic W of `count` samples."""
    n_ranks = count * (count + 1) // 2
    if count > 50:  # as scipy's test does
        deviation = (n_ranks * (2 * count + 1) / 12) ** 0.5
        return int(n_ranks / 2 - stats.norm.ppf((1 + LEVEL) / 2) * deviation)
    ways = np.zeros(n_ranks + 1)
    ways[0] = 1
    for rank in range(1, count + 1):  # each rank stands on the positive side or does not
        ways[rank:] = ways[rank:] + ways[:-rank]
    return int((ways.cumsum() <= (1 - LEVEL) / 2 * 2.0**count).sum())
