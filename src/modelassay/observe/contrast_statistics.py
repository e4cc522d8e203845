"""Effect sizes of many units at once, and p-values from labels permuted by document."""

from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from jaxtyping import Bool, Float, Int

from modelassay.core.errors import TooFewTokensError

N_PERMUTATIONS = 9999
"""The smallest p-value is then 1/10,000 (ours)."""
_CHUNK = 500  # permutations at a time


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Effects:
    """How each unit's responses to A differ from those to B; positive where A's are larger."""

    auroc: Float[np.ndarray, " unit"]
    """Chance that a random item of A has the larger mean response, ties counted half."""
    low: Float[np.ndarray, " unit"]
    """Lower end of its 95 % interval, over documents."""
    high: Float[np.ndarray, " unit"]
    difference: Float[np.ndarray, " unit"]
    """Standardised mean difference, with Hedges' correction; 0 for a constant unit."""
    rate: Float[np.ndarray, " unit"]
    """Difference of the shares of tokens on which the unit is active."""


def effects(
    means: Float[np.ndarray, "item unit"],
    rates: Float[np.ndarray, "item unit"],
    side: Bool[np.ndarray, " item"],
    groups: Int[np.ndarray, " item"],
) -> Effects:
    """Effect sizes.

    The AUROC's interval takes the variance of its influence function, summed within each document
    (DeLong et al. 1988, with clusters). The standardised mean difference is
    ``(mean_A - mean_B) / s · (1 - 3 / (4 (n_A + n_B) - 9))`` with the pooled s (Hedges 1981).

    Raises:
        TooFewTokensError: if a side has fewer than two items.
    """
    n_a, n_b = int(side.sum()), int((~side).sum())
    if min(n_a, n_b) < 2:
        raise TooFewTokensError(
            f"A contrast must have two items on each side; got {n_a} and {n_b}. Add documents."
        )
    every, within = scipy.stats.rankdata(means, axis=0), np.empty_like(means)
    for members in (side, ~side):
        within[members] = scipy.stats.rankdata(means[members], axis=0)
    # Share of the other side that each item lies above.
    above = (every - within) / np.where(side, n_b, n_a)[:, None]
    auroc = above[side].mean(0)
    influence = np.where(side[:, None], (above - auroc) / n_a, -(above - (1 - auroc)) / n_b)
    owners, owner = np.unique(groups, return_inverse=True)
    summed = np.zeros((len(owners), means.shape[1]))
    np.add.at(summed, owner, influence)
    n = len(owners)
    error = np.sqrt((summed**2).sum(0) * n / max(1, n - 1))
    a, b = means[side], means[~side]
    pooled = np.sqrt(
        ((n_a - 1) * a.var(0, ddof=1) + (n_b - 1) * b.var(0, ddof=1)) / (n_a + n_b - 2)
    )
    gap = a.mean(0) - b.mean(0)
    correction = 1 - 3 / (4 * (n_a + n_b) - 9)
    known = pooled > 1e-12 * np.abs(means).max(0, initial=1e-300)
    return Effects(
        auroc=auroc,
        low=np.clip(auroc - 1.96 * error, 0, 1),
        high=np.clip(auroc + 1.96 * error, 0, 1),
        difference=np.divide(gap, pooled, out=np.zeros_like(gap), where=known) * correction,
        rate=rates[side].mean(0) - rates[~side].mean(0),
    )


def permutation_p(
    means: Float[np.ndarray, "item unit"],
    side: Bool[np.ndarray, " item"],
    groups: Int[np.ndarray, " item"],
    generator: torch.Generator,
    *,
    n_permutations: int = N_PERMUTATIONS,
    direction: Float[np.ndarray, " unit"] | None = None,
) -> Float[np.ndarray, " unit"]:
    """P-value of each unit's AUROC, from labels permuted by document.

    Where documents have items on both sides, the sides are swapped within each document at random;
    otherwise the documents' labels are shuffled. ``p = (1 + #{as extreme}) / (1 + permutations)``
    (Phipson & Smyth 2010).

    Args:
        means: responses.
        side: True for A.
        groups: document of each item.
        generator: draws the permutations.
        n_permutations: how many.
        direction: sign of the difference that counts, for one-sided p-values; None for either.
    """
    ranks = scipy.stats.rankdata(means, axis=0)
    # Centred, a label's rank-sum has the mean zero under either way of permuting.
    ranks -= ranks.mean(0)
    sign = np.ones(means.shape[1]) if direction is None else np.sign(direction)
    observed = _sum_of(side[None, :], ranks, side)[0] * sign
    tolerance = 1e-9 * (1 + np.abs(observed))
    exceeding = np.zeros(means.shape[1])
    for start in range(0, n_permutations, _CHUNK):
        count = min(_CHUNK, n_permutations - start)
        drawn = _relabelled(side, groups, count, generator)
        sums = _sum_of(drawn, ranks, side) * sign
        if direction is None:
            exceeding += (np.abs(sums) >= np.abs(observed) - tolerance).sum(0)
        else:
            exceeding += (sums >= observed - tolerance).sum(0)
    return (1 + exceeding) / (1 + n_permutations)


def adjusted(p: Float[np.ndarray, " unit"]) -> Float[np.ndarray, " unit"]:
    """The false discovery rate at which each is a discovery (Benjamini & Hochberg 1995)."""
    return scipy.stats.false_discovery_control(p) if len(p) else p


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); NaN without trials."""
    if trials == 0:
        return float("nan"), float("nan")
    z = 1.96
    share, scale = successes / trials, 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / scale
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def is_paired(side: Bool[np.ndarray, " item"], groups: Int[np.ndarray, " item"]) -> bool:
    """Whether some document has items on both sides."""
    return bool(np.intersect1d(groups[side], groups[~side]).size)


def _sum_of(
    labels: Bool[np.ndarray, "permutation item"],
    ranks: Float[np.ndarray, "item unit"],
    side: Bool[np.ndarray, " item"],
) -> Float[np.ndarray, "permutation unit"]:
    """Mean rank of A less that of B, up to a factor that no permutation changes."""
    share = side.mean()
    return (labels.astype(np.float64) - share) @ ranks


def _relabelled(
    side: Bool[np.ndarray, " item"], groups: Int[np.ndarray, " item"], count: int,
    generator: torch.Generator,
) -> Bool[np.ndarray, "permutation item"]:  # fmt: skip
    owners, owner = np.unique(groups, return_inverse=True)
    draws = torch.rand(count, len(owners), generator=generator, dtype=torch.float64).numpy()
    if is_paired(side, groups):
        return side[None, :] ^ (draws < 0.5)[:, owner]
    label = np.zeros(len(owners), dtype=bool)
    label[owner[side]] = True
    return label[np.argsort(draws, axis=1)][:, owner]
