"""Whether a group of points falls apart into clusters, beyond what its second moments explain.

k-means splits anything: two clusters explain 64 % of the variance even of one Gaussian in one
dimension. So the share that k clusters explain is compared with the same on points of exactly the
same mean and second moments that are otherwise random. Ours, after the gap statistic (Tibshirani,
Walther and Hastie 2001) and rotation tests (Langsrud 2005).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import TooFewTokensError
from modelassay.core.randomness import derived

LEAST = 12  # points, below which nothing is said (ours)
_AXES = 10  # principal axes that points are clustered along (ours)
_MOST = 6  # clusters (ours)
_STARTS = 4  # of k-means; the best counts (ours)
_ROUNDS = 10
_DRAWS = 99  # of the null: p-values from 0.01 (ours)
_GROUPS = 10  # of the jackknife (ours)
_T_9 = 2.262  # 97.5 % of Student's distribution with 9 degrees of freedom
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Facets:
    """How a group of points falls apart."""

    count: int
    """Clusters; 1 unless the null is rejected at 5 %."""
    labels: Int[Tensor, " point"]
    """Cluster of each point; all 0 for one cluster."""
    index: float
    """The share of variance that the best number of clusters explains beyond the null, less what
    the best of a null draw explains beyond it: 0 on average where there are no clusters."""
    low: float
    """95 % interval of `index`, by a jackknife over tenths of the points."""
    high: float
    p_value: float
    """Share of null draws (and the points) in which clusters stand out as much."""
    explained: Float[Tensor, " clusters"]
    """Share of the variance explained by 2, 3, … clusters."""
    null: Float[Tensor, " clusters"]
    """The null's mean of the same."""


def find_facets(points: Float[Tensor, "point d"], seed: int = 0) -> Facets:
    """Cluster points along their 10 leading principal axes, and compare with the null.

    With F_k the share of variance that k = 2 … 6 clusters explain, m_k and s_k its mean and
    deviation over null draws: the number of clusters is ``argmax (F_k - m_k) / s_k`` where the
    maximum lies among the highest 5 % of the null's own maxima, else 1. A null draw multiplies the
    points by a random rotation of the points' axis that keeps their mean.

    Args:
        points: rows; bring them to unit length first if only their directions matter.
        seed: decides the draws and the starts.

    Raises:
        TooFewTokensError: with fewer than 12 points.
    """
    if len(points) < LEAST:
        raise TooFewTokensError(
            f"There must be at least {LEAST} points to look for clusters in; got {len(points)}. "
            "Add images."
        )
    scores = _principal_scores(points)
    if scores.shape[1] == 0:
        return _indivisible(len(points))
    generator = derived(seed, "facets")
    noise = torch.randn(_DRAWS, *scores.shape, generator=generator)
    frames = torch.linalg.qr(noise - noise.mean(1, keepdim=True)).Q
    drawn = frames * scores.norm(dim=0)
    shares, labels = _explained(torch.cat([scores[None], drawn]), generator)
    mean, deviation = shares[1:].mean(0), shares[1:].std(0).clamp_min(1e-9)
    beyond = shares - mean
    standing_out = (beyond / deviation).max(1)
    chance = float(beyond[1:].max(1).values.mean())
    index = float(beyond[0].max()) - chance
    margin = _T_9 * _jackknife(scores, mean, generator)
    higher = int((standing_out.values[1:] >= standing_out.values[0]).sum())
    p_value = (higher + 1) / (_DRAWS + 1)
    best = int(standing_out.indices[0]) if p_value <= _LEVEL else -1
    return Facets(
        count=best + 2, labels=labels[best] if best >= 0 else torch.zeros_like(labels[0]),
        index=index, low=index - margin, high=index + margin, p_value=p_value,
        explained=shares[0], null=mean,
    )  # fmt: skip


def _principal_scores(points: Tensor) -> Float[Tensor, "point axis"]:
    """Coordinates along the leading principal axes, of total variance 1; no axes if all equal."""
    centred = (points - points.mean(0)).double()
    left, scale, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = min(_AXES, len(points) - 2, int((scale > 1e-6 * points.double().norm()).sum()))
    left, scale = left[:, :kept], scale[:kept]
    return (left * scale / scale.square().sum().sqrt()).float()


def _indivisible(n: int) -> Facets:
    """Points that are all equal: one facet, and nothing to explain."""
    nothing = torch.zeros(_MOST - 1)
    return Facets(
        count=1, labels=torch.zeros(n, dtype=torch.long), index=0.0, low=0.0, high=0.0,
        p_value=1.0, explained=nothing, null=nothing,
    )  # fmt: skip


def _jackknife(scores: Tensor, null: Tensor, generator: torch.Generator) -> float:
    """The index's deviation, from leaving out each tenth of the points in turn.

    The null stays that of all points: what it is off by is the same for every tenth.
    """
    n = len(scores)
    groups = torch.randperm(n, generator=generator)[: n - n % _GROUPS].view(_GROUPS, -1)
    left = torch.stack([torch.tensor(sorted(set(range(n)) - set(g.tolist()))) for g in groups])
    parts = scores[left]
    parts = parts - parts.mean(1, keepdim=True)
    parts = parts / parts.square().sum((1, 2), keepdim=True).sqrt()
    indices = (_explained(parts, generator)[0] - null).max(1).values
    return float(((_GROUPS - 1) / _GROUPS * (indices - indices.mean()).square().sum()).sqrt())


def _explained(
    sets: Float[Tensor, "set point axis"], generator: torch.Generator
) -> tuple[Float[Tensor, "set clusters"], list[Int[Tensor, " point"]]]:
    """Shares of variance explained by 2, 3, … clusters, and the first set's labels for each."""
    found = [_clustered(sets, count, generator) for count in range(2, _MOST + 1)]
    return torch.stack([share for share, _ in found], dim=1), [labels for _, labels in found]


def _clustered(
    points: Float[Tensor, "set point axis"], count: int, generator: torch.Generator
) -> tuple[Float[Tensor, " set"], Int[Tensor, " point"]]:
    """The share of each set's variance (1 in all) that k-means explains; the first's labels."""
    sets, n, _ = points.shape
    x = points.repeat_interleave(_STARTS, dim=0)
    first = torch.rand(len(x), n, generator=generator).argsort(1)[:, :count]
    centres = x.gather(1, first[..., None].expand(-1, -1, x.shape[2]))
    for _ in range(_ROUNDS):
        members = F.one_hot(torch.cdist(x, centres).argmin(2), count).to(x)
        sizes = members.sum(1)[..., None]
        centres = torch.where(sizes > 0, members.transpose(1, 2) @ x / sizes.clamp_min(1), centres)
    distances, labels = torch.cdist(x, centres).square().min(2)
    within, start = distances.sum(1).view(sets, _STARTS).min(1)
    return 1 - within, labels[int(start[0])]
