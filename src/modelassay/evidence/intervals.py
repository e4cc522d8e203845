"""Intervals: the bootstrap over documents; and false discoveries among many tests.

Tokens of one document resemble each other, so the document is the unit that is resampled: an
interval over tokens would be too narrow by as much as they do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
