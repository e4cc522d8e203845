"""Dictionaries that keep k latents of every token, other than TopK's k."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_parts import (
    check_free_decoder,
    check_k,
    tied,
    unit_rows,
)
from modelassay.decompositions.sparsifiers import AbsTopKActivation, GroupMaxActivation
from modelassay.subjects.site import Site


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class AbsTopK(Recipe):
    """Keep the k pre-activations of every token that are largest in magnitude, with their signs.

    One latent may so stand for both ends of a direction. It starts as `TopK` does.

    Reference: Zhu, Khalili, Zhu 2025, "AbsTopK".
    """

    references: ClassVar[tuple[str, ...]] = ("zhu2025",)

    k: int = 32
    """Active latents per token; the default is TopK's."""
    free_decoder: bool = False
    """Whether rows of the decoder are free in length while it is fitted, latents being compared by
    ``π |d|``; see `NormAware`."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)
        check_free_decoder(self.free_decoder, frozen=self.frozen_decoder)

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary; see `Recipe.build`."""
        decoder = unit_rows(self.width, d_out, generator)
        return tied(self, decoder, AbsTopKActivation(self.k), d_in, data_mean, site)


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMax(Recipe):
    """Keep the largest pre-activation of each of k groups of width / k latents.

    No search over all latents is needed, and two latents of a group never fire together. It
    starts as `TopK` does.

    Reference: the sparsifier of EleutherAI's sparsify; the rule is that of Srivastava et al.
    2013, "Compete to compute", section 3.
    """

    references: ClassVar[tuple[str, ...]] = ("srivastava2013",)

    k: int = 32
    """Groups, each with at most one active latent per token; the default is TopK's k."""
    free_decoder: bool = False
    """Whether rows of the decoder are free in length while it is fitted, latents being compared by
    ``π |d|``; see `NormAware`."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)
        check_free_decoder(self.free_decoder, frozen=self.frozen_decoder)
        if self.width % self.k:
            raise ValueRangeError(
                f"width must be a multiple of k={self.k}; got {self.width}. Use "
                f"{self.width - self.width % self.k}."
            )

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary; see `Recipe.build`."""
        decoder = unit_rows(self.width, d_out, generator)
        return tied(self, decoder, GroupMaxActivation(self.k), d_in, data_mean, site)
