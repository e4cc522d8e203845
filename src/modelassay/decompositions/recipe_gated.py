"""Gated dictionaries: what is active is learned apart from how much."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.recipe_parts import (
    check_coefficient,
    check_width,
    tied,
    unit_rows,
)
from modelassay.subjects.site import Site


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class Gated(Recipe):
    """Let a gate decide which latents are active, and pay for gates alone.

    ``z_i = H(π_i) relu(exp(r_i) π_i + o_i)`` (`GatedActivation`) is trained with ``|x - x̂(z)|² +
    λ sum_i relu(π_i) + |x - x̂'(relu(π))|²``, x̂' with a detached decoder: values are not shrunk
    by the penalty, and the gates, which pass no gradient from the first term, are taught by the
    third. Decoder rows have unit length; it starts as `TopK` does, with r = o = 0.

    Reference: Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse
    autoencoders", section 3.2.
    """

    references: ClassVar[tuple[str, ...]] = ("rajamanoharan2024gated",)

    l1_coefficient: float = 5.0
    """λ, for activations scaled to a mean norm of sqrt(d); as `ReLUL1`'s, whose loss the gates'
    is (ours)."""

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
        decoder = unit_rows(self.width, d_out, generator)
        zeros = decoder.new_zeros(self.width)
        return tied(self, decoder, GatedActivation(zeros, zeros), d_in, data_mean, site)
