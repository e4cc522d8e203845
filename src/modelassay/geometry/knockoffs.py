"""Dictionaries that keep some of a dictionary's geometry and lose the rest.

From directions D (and codes Z), all with D's lengths:

- **K0** independent random directions: no geometry but the lengths.
- **K1** D under a random rotation: all of the geometry; a reader must be fitted anew.
- **K2** the best approximation, in d dimensions, of a Gram matrix that is the correlation of the
  latents' activity: what co-activation alone would give (superposition).
- **K3** clusters alone: a random direction for each, and random offsets, in D's proportions.
- **K4** D with latents exchanged within clusters: the same vectors, their order lost.
- **K5** D with the signs of what departs from the clusters' means drawn at random, for every latent
  and every principal axis of the departures.

A reader that does as well on K_k as on D uses no more of the geometry than level k has; see
`knockoff_readers`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ShapeError, UnknownNameError, ValueRangeError
from modelassay.decompositions.codes import Codes

_NEAR = 0.5
"""Latents of one cluster have a mean cosine above this; cf. the graph of Engels and others."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class Original:
    """What knock-offs are made of."""

    directions: Float[Tensor, "latent d"]
    clusters: Int[Tensor, " _"]
    """A number for every latent; equal within a cluster."""
    coactivation: Float[Tensor, "_ _"]
    """Correlations of the latents' values; see `coactivation`."""

    def __post_init__(self) -> None:
        n = len(self.directions)
        if self.clusters.shape != (n,) or self.coactivation.shape != (n, n):
            raise ShapeError(
                f"clusters and coactivation must be [{n}] and [{n}, {n}] for {n} directions; got "
                f"{list(self.clusters.shape)} and {list(self.coactivation.shape)}. "
                "Take all three from one dictionary."
            )

    @staticmethod
    def of(
        directions: Float[Tensor, "latent d"],
        codes: Codes,
        clusters: Int[Tensor, " latent"] | None = None,
    ) -> "Original":
        """Of a dictionary and its codes.

        Args:
            directions: one row per latent.
            codes: on tokens enough to tell which latents are active together.
            clusters: found by average linkage of cosines if None.
        """
        return Original(
            directions=directions,
            clusters=clusters_of(directions) if clusters is None else clusters,
            coactivation=coactivation(codes),
        )


def clusters_of(
    directions: Float[Tensor, "latent d"], near: float = _NEAR
) -> Int[Tensor, " latent"]:
    """Clusters by average linkage: two were joined if their mean cosine is above `near`.

    Memory grows with the square of the width.

    Raises:
        ValueRangeError: if a direction is zero, or there is only one.
    """
    if len(directions) < 2 or bool((directions.norm(dim=1) <= _TINY).any()):
        raise ValueRangeError(
            f"Clusters need at least 2 directions other than zero; got {len(directions)}, "
            f"{int((directions.norm(dim=1) <= _TINY).sum())} of them zero. Leave those out."
        )
    unit = functional.normalize(directions.double(), dim=1).cpu().numpy()
    tree = linkage(unit, "average", metric="cosine")
    return torch.from_numpy(fcluster(tree, 1 - near, criterion="distance")).long() - 1


def coactivation(codes: Codes) -> Float[Tensor, "latent latent"]:
    """Pearson correlations of all pairs of latents over the tokens; 0 with a constant latent."""
    values = codes.to_scipy().astype("float64")
    mean = torch.from_numpy(values.mean(0)).reshape(-1)
    second = torch.from_numpy((values.T @ values).toarray()) / codes.n_tokens
    covariance = second - mean[:, None] * mean
    sd = covariance.diagonal().clamp(min=0).sqrt()
    scale = torch.where(sd > _TINY, 1 / sd.clamp(min=_TINY), 0.0)
    return (covariance * scale[:, None] * scale).float()


def knockoff(
    level: str, original: Original, generator: torch.Generator
) -> Float[Tensor, "latent d"]:
    """The directions of one level's knock-off.

    Args:
        level: "K0" to "K5".
        original: what it is made of.
        generator: of all that is random in it.

    Raises:
        UnknownNameError: if there is no such level.
    """
    if level not in KNOCKOFFS:
        raise UnknownNameError("Level", level, KNOCKOFFS)
    found = KNOCKOFFS[level](original, generator)
    return functional.normalize(found, dim=1) * original.directions.norm(dim=1, keepdim=True)


def _random(original: Original, generator: torch.Generator) -> Tensor:
    return torch.randn(original.directions.shape, generator=generator)


def _rotated(original: Original, generator: torch.Generator) -> Tensor:
    return original.directions @ _rotation(original.directions.shape[1], generator)


def _mirroring(original: Original, generator: torch.Generator) -> Tensor:
    n, d = original.directions.shape
    values, vectors = torch.linalg.eigh(original.coactivation.double())
    kept = min(n, d)
    rows = vectors[:, n - kept :] * values[n - kept :].clamp(min=0).sqrt()
    rows = functional.pad(rows, (0, d - kept)).float()
    # A latent that correlates with none has no place in the approximation: it gets a random one.
    lost = rows.norm(dim=1, keepdim=True) <= 1e-6
    rows = torch.where(lost, _random(original, generator), rows)
    return rows @ _rotation(d, generator)


def _clustered(original: Original, generator: torch.Generator) -> Tensor:
    means, sizes = _cluster_means(
        functional.normalize(original.directions, dim=1), original.clusters
    )
    # |mean of n unit vectors|^2 = 1/n + (1 - 1/n) * their mean cosine, the share of the parent.
    n = sizes.clamp(min=2)
    share = ((n * means.square().sum(1) - 1) / (n - 1)).clamp(0, 1)[original.clusters][:, None]
    share = torch.where(sizes[original.clusters][:, None] > 1, share, 0.0)
    parents, offsets = (
        functional.normalize(torch.randn(count, means.shape[1], generator=generator), dim=1)
        for count in (len(means), len(original.directions))
    )
    return share.sqrt() * parents[original.clusters] + (1 - share).sqrt() * offsets


def _exchanged(original: Original, generator: torch.Generator) -> Tensor:
    found = original.directions.clone()
    for cluster in original.clusters.unique():
        members = (original.clusters == cluster).nonzero()[:, 0]
        found[members] = found[members[torch.randperm(len(members), generator=generator)]]
    return found


def _with_random_signs(original: Original, generator: torch.Generator) -> Tensor:
    means = _cluster_means(original.directions, original.clusters)[0][original.clusters]
    departures = original.directions - means
    axes = torch.linalg.svd(departures, full_matrices=False).Vh
    coordinates = departures @ axes.T
    signs = 2 * torch.randint(2, coordinates.shape, generator=generator).float() - 1
    return means + (signs * coordinates) @ axes


KNOCKOFFS: dict[str, Callable[[Original, torch.Generator], Tensor]] = {
    "K0": _random,
    "K1": _rotated,
    "K2": _mirroring,
    "K3": _clustered,
    "K4": _exchanged,
    "K5": _with_random_signs,
}
"""Level -> its generator, before lengths are restored."""


def _cluster_means(directions: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor]:
    sizes = torch.bincount(clusters).to(directions)
    sums = directions.new_zeros(len(sizes), directions.shape[1]).index_add(0, clusters, directions)
    return sums / sizes.clamp(min=1)[:, None], sizes


def _rotation(d: int, generator: torch.Generator) -> Float[Tensor, "d d"]:
    return torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
