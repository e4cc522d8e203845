"""Dictionaries that keep the k largest pre-activations, of a token or of a batch's mean token."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_parts import (
    check_free_decoder,
    check_k,
    tied,
    unit_rows,
)
from modelassay.decompositions.sparsifiers import BatchTopKActivation, TopKActivation
from modelassay.subjects.site import Site


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class TopK(Recipe):
    """Keep the k largest pre-activations of every token.

    The decoder starts as random unit rows, the encoder as its transpose, scaled by one number
    before the first step (see `Training.matches_start`), `b_dec` as the mean of the data and
    `b_enc` as zero.

    Reference: Gao et al. 2024, section 2.3 and appendix A.1 (there `b_dec` starts as the
    geometric median).
    """

    references: ClassVar[tuple[str, ...]] = ("gao2024",)

    k: int = 32
    """Active latents per token; the default is that of Gao et al. 2024, figure 1."""
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
        return tied(self, decoder, TopKActivation(self.k), d_in, data_mean, site)


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTopK(Recipe):
    """Keep the ``k * tokens`` largest pre-activations of a batch; at inference, a threshold.

    It starts as `TopK` does.

    Reference: Bussmann, Leask, Nanda 2024, section 3.
    """

    references: ClassVar[tuple[str, ...]] = ("bussmann2024",)

    k: int = 32
    """Mean number of active latents per token; the default is TopK's."""
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
        """An untrained dictionary, its threshold not calibrated; see `Recipe.build`."""
        decoder = unit_rows(self.width, d_out, generator)
        return tied(self, decoder, BatchTopKActivation(self.k), d_in, data_mean, site)
