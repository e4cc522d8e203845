"""Dictionaries of rectified latents that pay for their values."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_parts import (
    check_coefficient,
    check_positive,
    check_width,
    tied,
    unit_rows,
)
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.subjects.site import Site


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
        return _rectified(self, d_in, d_out, data_mean, generator, site)


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class AnnealedL1(Recipe):
    """Keep what is positive, and pay for it by a power that falls: ``λ sum_i (z_i |d_i|)^p``.

    p falls from 1 to `p_end` in equal steps; a power below 1 asks less of large values and more
    of small ones, nearer to a count. At each step λ is rescaled so that the penalty's mean stays
    what it was. Until the first step it is `ReLUL1`: free decoder rows, which start at 0.1.

    Reference: Karvonen et al. 2024, "Measuring progress in dictionary learning for language model
    interpretability with board game models", section 4 (unit decoder rows there; the weights |d|,
    ours, are the same once the norms are folded).
    """

    references: ClassVar[tuple[str, ...]] = ("karvonen2024", "conerly2024")

    l1_coefficient: float = 5.0
    """λ at p = 1; as `ReLUL1`'s."""
    p_end: float = 0.2
    """The last p (Karvonen et al. 2024)."""
    p_steps: int = 10
    """Steps in which p falls (dictionary_learning)."""
    start_share: float = 0.15
    """Share of the run after which p falls for the first time (ours)."""
    end_share: float = 0.9
    """Share of the run by which p has fallen for the last time (dictionary_learning)."""

    def __post_init__(self) -> None:
        check_width(self.width)
        check_coefficient("l1_coefficient", self.l1_coefficient, "5")
        check_positive("p_end", self.p_end, "0.2")
        if self.p_end > 1 or self.p_steps < 1:
            raise ValueRangeError(
                "p_end must be at most 1 and p_steps at least 1; got "
                f"{self.p_end} and {self.p_steps}. Use 0.2 and 10."
            )
        if not 0 <= self.start_share < self.end_share <= 1:
            raise ValueRangeError(
                "start_share and end_share must ascend within 0 and 1; got "
                f"{self.start_share} and {self.end_share}. Use 0.15 and 0.9."
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
        dictionary = _rectified(self, d_in, d_out, data_mean, generator, site)
        dictionary.name = f"Annealed {dictionary.name}"
        return dictionary


def _rectified(
    recipe: Recipe,
    d_in: int,
    d_out: int,
    data_mean: Float[Tensor, " d_out"],
    generator: torch.Generator,
    site: Site | None,
) -> Dictionary:
    length = 1.0 if recipe.frozen_decoder else 0.1
    decoder = length * unit_rows(recipe.width, d_out, generator)
    return tied(recipe, decoder, ReLUActivation(), d_in, data_mean, site)
