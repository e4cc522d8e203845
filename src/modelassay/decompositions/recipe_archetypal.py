"""Archetypal dictionaries: directions are mixtures of points of the data."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_parts import check_k
from modelassay.decompositions.recipe_topk import TopK
from modelassay.subjects.site import Site

CandidateKind = Literal["centres", "sample"]


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class Archetypal(Recipe):
    """Directions that stay close to the convex hull of some points of the data.

    The decoder is ``D = (W C + Λ) e^m``: C are candidates, fixed points of the centred data; rows
    of W are mixing weights, at least 0 with a sum of 1; rows of Λ have at most the norm
    `relaxation`; m is one number. The encoder is free, and any sparsifier will do: that of TopK by
    default, else see `of`. Meant to make dictionaries of different seeds more alike.

    What comes out is an ordinary dictionary of unit rows; see `ArchetypalDecoder`. With a frozen
    decoder it is the inner recipe's baseline: random rows, no candidates.

    Reference: Fel et al. 2025, "Archetypal SAE: adaptive and stable dictionary learning for
    concept extraction in large vision models", section 4 (there candidates are not centred: no
    bias is added to a reconstruction).
    """

    references: ClassVar[tuple[str, ...]] = ("fel2025",)

    k: int = 32
    """Active latents per token, of TopK. Of no effect beside `inner`."""
    candidates: int = 1024
    """Rows of C. The cost of a step has a part that grows with width times candidates (ours)."""
    candidates_are: CandidateKind = "centres"
    """Centres of clusters of the data, as in the reference, or some of its points."""
    relaxation: float = 1.0
    """Largest norm of a row of Λ, in units of the candidates' root mean square norm: 0 to stay
    inside the hull."""
    inner: Recipe | None = None
    """What is fitted with such a decoder, if `k` does not say it; of the same width."""

    @staticmethod
    def of(
        inner: Recipe,
        *,
        candidates: int = 1024,
        candidates_are: CandidateKind = "centres",
        relaxation: float = 1.0,
    ) -> "Archetypal":
        """A dictionary of any recipe: ``Archetypal.of(BatchTopK(width=4096))``.

        Raises:
            ValueRangeError: if a number is out of its range.
        """
        return Archetypal(
            width=inner.width,
            frozen_decoder=inner.frozen_decoder,
            candidates=candidates,
            candidates_are=candidates_are,
            relaxation=relaxation,
            inner=inner,
        )

    @property
    def fitted(self) -> Recipe:
        """The recipe whose decoder is archetypal."""
        if self.inner is not None:
            return self.inner
        return TopK(width=self.width, k=self.k, frozen_decoder=self.frozen_decoder)

    def __post_init__(self) -> None:
        if self.inner is None:
            check_k(self.k, self.width)
        ours = self.width, self.frozen_decoder
        theirs = self.fitted.width, self.fitted.frozen_decoder
        if ours != theirs:
            raise ValueRangeError(
                f"width and frozen_decoder must be those of the inner recipe, {theirs}; got "
                f"{ours}. Use Archetypal.of(recipe), which takes them over."
            )
        if self.candidates < 2:
            raise ValueRangeError(
                f"candidates must be at least 2; got {self.candidates}. Use about 1024."
            )
        if not (math.isfinite(self.relaxation) and self.relaxation >= 0):
            raise ValueRangeError(
                f"relaxation must be finite and at least 0; got {self.relaxation}. Use 1, or 0 "
                "for mixtures of candidates alone."
            )

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary, its decoder not archetypal yet; see `Recipe.build`."""
        dictionary = self.fitted.build(d_in, d_out, data_mean, generator, site)
        others = dictionary.references if self.inner is not None else ()
        frozen = ("korznikov2026",) if self.frozen_decoder else ()
        dictionary.references = tuple(dict.fromkeys((*self.references, *others, *frozen)))
        dictionary.name = f"Archetypal {dictionary.name}"
        dictionary.recipe = self
        return dictionary
