"""Dictionaries whose encoder is a pursuit over their own directions."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.orthogonal_pursuit import OrthogonalPursuitActivation
from modelassay.decompositions.pursuit import check_k as check_support
from modelassay.decompositions.recipe_parts import check_k, tied, unit_rows
from modelassay.subjects.site import Site


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class MatchingPursuit(Recipe):
    """Choose latents one by one, each by what those before it leave of the token.

    ``r = x - b_dec``, and k times: ``i = argmax r d_i``, ``z_i += r d_i``, ``r -= (r d_i) d_i``
    with unit rows d of the decoder, whose transpose the encoder is. There is no encoder's bias.
    Latents that overlap need not compete for one linear reading: those chosen later stand apart
    from those before them. A step costs k passes over the pre-activations.

    Reference: Costa et al. 2025, "From flat to hierarchical: extracting sparse representations
    with matching pursuit", section 3.
    """

    references: ClassVar[tuple[str, ...]] = ("costa2025", "mallat1993")

    k: int = 32
    """Rounds, and so the most active latents of a token; the default is TopK's."""
    tolerance: float = 0.0
    """Rounds end once the largest pre-activation is at most this share of the first one; 0 for k
    rounds wherever something is left (ours)."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)
        _check_tolerance(self.tolerance)

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
        activation = MatchingPursuitActivation(self.k, self.tolerance)
        return _without_bias(tied(self, decoder, activation, d_in, data_mean, site))


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class OrthogonalMatchingPursuit(Recipe):
    """Matching pursuit whose values are, after every round, least squares on all that was chosen.

    k times: the latent joins that correlates most with the residual, and ``z = argmin |x - b_dec -
    z W_dec|²`` over non-negative values of those that joined. The encoder is the decoder's
    transpose, with unit rows and without a bias. The error is usually less than matching pursuit's
    for the same number of latents; a step costs k passes over the pre-activations and k small
    systems a token, about four times what one of matching pursuit does.

    Reference: Pati, Rezaiifar and Krishnaprasad 1993; non-negative: Bruckstein, Elad and Zibulevsky
    2008; as the encoder of a trained dictionary, with matching pursuit: Costa et al. 2025.
    """

    references: ClassVar[tuple[str, ...]] = ("pati1993", "bruckstein2008", "costa2025")

    k: int = 32
    """Rounds, and so the most active latents of a token; the default is TopK's."""
    tolerance: float = 0.0
    """Rounds end once the largest of what is left of the pre-activations is at most this share of
    the first one; 0 for k rounds wherever something is left (ours)."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)
        _check_tolerance(self.tolerance)

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary; see `Recipe.build`.

        Raises:
            ValueRangeError: if k exceeds the dimensions, in which least squares leave nothing.
        """
        decoder = unit_rows(self.width, d_out, generator)
        check_support(self.k, min(decoder.shape), decoder)
        activation = OrthogonalPursuitActivation(self.k, self.tolerance)
        return _without_bias(tied(self, decoder, activation, d_in, data_mean, site))


def _without_bias(dictionary: Dictionary) -> Dictionary:
    """What the residual correlates with has no bias; the encoder follows the decoder."""
    dictionary.b_enc.requires_grad_(False)
    dictionary.W_enc.requires_grad_(not dictionary.frozen_decoder)
    return dictionary


def _check_tolerance(tolerance: float) -> None:
    if not (math.isfinite(tolerance) and 0 <= tolerance < 1):
        raise ValueRangeError(
            f"tolerance must be at least 0 and below 1; got {tolerance}. Use 0 for k "
            "rounds, or 0.1 to end them early."
        )
