"""Baselines that need no training: neurons, principal components, random directions."""

from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition, Parts
from modelassay.decompositions.dense_codes import dense_codes
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.recipes import unit_rows
from modelassay.decompositions.sparsifiers import TopKActivation
from modelassay.subjects.site import Site


@runtime_checkable
class HasMoments(Protocol):
    """The mean and covariance of some activations."""

    @property
    def mean(self) -> Tensor: ...  # noqa: D102
    @property
    def covariance(self) -> Tensor: ...  # noqa: D102


@final
class Neurons(Decomposition):
    """The activations' own axes: latent i is entry i, signed, and the reconstruction is exact."""

    references: tuple[str, ...] = ("elhage2022",)

    def __init__(self, d: int, site: Site | None = None) -> None:
        if d < 1:
            raise ValueRangeError(f"d must be at least 1; got {d}. Pass the site's width.")
        self._axes = torch.eye(d)
        self.reads = self.writes = site
        self.name = f"neurons {d}"

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self._axes)

    @property
    def d_in(self) -> int:
        """Width of the activations that it encodes."""
        return len(self._axes)

    @property
    def directions(self) -> Float[Tensor, "latent d_out"]:
        """The unit vectors of the axes."""
        return self._axes

    @property
    def bias(self) -> Float[Tensor, " d_out"]:
        """Zero."""
        return self._axes.new_zeros(len(self._axes))

    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """Every entry as it is."""
        return dense_codes(x)

    def parts(self) -> Parts:
        """What `save` writes."""
        return Parts(kind="neurons", config={"d": self.width}, tensors={})


@final
class PCA(Decomposition):
    """Principal components: ``z = (x - mean) V``, signed, sorted by variance, V orthonormal."""

    references: tuple[str, ...] = ("pearson1901",)

    def __init__(
        self,
        mean: Float[Tensor, " d"],
        components: Float[Tensor, "latent d"],
        variances: Float[Tensor, " latent"],
        *,
        k: int | None = None,
        site: Site | None = None,
    ) -> None:
        """Make a PCA from what was computed already; see `from_moments`.

        Args:
            mean: subtracted before the projection.
            components: orthonormal rows.
            variances: of the activations along each component, descending.
            k: keep only the k values of largest magnitude of every token; None keeps all.
            site: where the activations stand.
        """
        if k is not None and not 1 <= k <= len(components):
            raise ValueRangeError(
                f"k must be between 1 and the number of components, {len(components)}; got {k}. "
                "Pass None to keep all."
            )
        self._mean, self._components = mean, components
        self.variances = variances
        self.k = k
        self.reads = self.writes = site
        self.name = f"PCA {len(components)}" + ("" if k is None else f" (k={k})")

    @staticmethod
    def from_moments(
        moments: HasMoments, k: int | None = None, *, site: Site | None = None
    ) -> "PCA":
        """All principal components of activations with the given mean and covariance.

        The sign of a component is free: its largest entry is made positive.
        """
        variances, columns = torch.linalg.eigh(moments.covariance.double())
        components = columns.flip(1).t()
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        return PCA(
            moments.mean.float(),
            (components * largest.sign()).float().contiguous(),
            variances.flip(0).clamp(min=0).float(),
            k=k,
            site=site,
        )

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self._components)

    @property
    def d_in(self) -> int:
        """Width of the activations that it encodes."""
        return len(self._mean)

    @property
    def directions(self) -> Float[Tensor, "latent d_out"]:
        """The components, of unit length and orthogonal."""
        return self._components

    @property
    def bias(self) -> Float[Tensor, " d_out"]:
        """The mean."""
        return self._mean

    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """Projections on the components."""
        return dense_codes((x - self._mean) @ self._components.t(), self.k)

    def parts(self) -> Parts:
        """What `save` writes."""
        return Parts(
            kind="pca",
            config={"k": self.k},
            tensors={
                "mean": self._mean,
                "components": self._components,
                "variances": self.variances,
            },
        )


class RandomDictionary(Dictionary):
    """Random unit directions, read by their own transpose: a TopK dictionary never trained."""

    references: tuple[str, ...] = ("korznikov2026",)

    def __init__(
        self,
        width: int,
        d: int,
        k: int,
        *,
        generator: torch.Generator,
        mean: Float[Tensor, " d"] | None = None,
        site: Site | None = None,
    ) -> None:
        """Draw the directions.

        Args:
            width: number of latents.
            d: width of the activations.
            k: active latents per token.
            generator: draws the directions.
            mean: of the activations: subtracted before, and added after; None is zero.
            site: where the activations stand.
        """
        decoder = unit_rows(width, d, generator)
        super().__init__(
            W_enc=decoder.t(),
            b_enc=decoder.new_zeros(width),
            W_dec=decoder,
            b_dec=decoder.new_zeros(d) if mean is None else mean.to(decoder),
            activation=TopKActivation(k),
            reads=site,
            writes=site,
            name=f"random {width} (k={k})",
            references=RandomDictionary.references,
        )
