"""The dictionaries that `fit` can make."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.dictionary import RECIPES, Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_nested import Matryoshka
from modelassay.decompositions.recipe_parts import (
    check_coefficient,
    check_k,
    check_width,
    tied,
    unit_rows,
)
from modelassay.decompositions.recipe_slots import AbsTopK, GroupMax
from modelassay.decompositions.recipe_thresholds import JumpReLU
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

__all__ = [
    "RECIPES",
    "AbsTopK",
    "BatchTopK",
    "GroupMax",
    "JumpReLU",
    "Matryoshka",
    "ReLUL1",
    "Recipe",
    "TopK",
    "unit_rows",
]


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class TopK(Recipe):
    """Keep the k largest pre-activations of every token.

    The decoder starts as random unit rows, the encoder as its transpose, `b_dec` as the mean of
    the data and `b_enc` as zero.

    Reference: Gao et al. 2024, section 2.3 and appendix A.1 (there `b_dec` starts as the
    geometric median).
    """

    references: ClassVar[tuple[str, ...]] = ("gao2024",)

    k: int = 32
    """Active latents per token; the default is that of Gao et al. 2024, figure 1."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)

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

    def __post_init__(self) -> None:
        check_k(self.k, self.width)

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


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class ReLUL1(Recipe):
    """Keep what is positive, and pay for it: ``|x - x̂|² + λ sum_i z_i |d_i|``.

    The decoder's rows are free in length and start at 0.1, the encoder as their transpose, so
    that a penalty on ``z |d|`` cannot be dodged by small values and long rows. A frozen decoder
    has unit rows.

    Reference: Bricken et al. 2023, "Sparse autoencoder details"; penalty and start as in
    Conerly et al. 2024, "Update on how we train SAEs" (there `b_dec` starts as zero; the mean of
    the data, ours, is the same for centred data).
    """

    references: ClassVar[tuple[str, ...]] = ("bricken2023", "conerly2024")

    l1_coefficient: float = 5.0
    """λ, for activations scaled to a mean norm of sqrt(d) (Conerly et al. 2024)."""

    def __post_init__(self) -> None:
        check_width(self.width)
        check_coefficient("l1_coefficient", self.l1_coefficient, "5")

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary; see `Recipe.build`."""
        length = 1.0 if self.frozen_decoder else 0.1
        decoder = length * unit_rows(self.width, d_out, generator)
        return tied(self, decoder, ReLUActivation(), d_in, data_mean, site)
