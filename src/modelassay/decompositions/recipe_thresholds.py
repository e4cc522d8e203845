"""Dictionaries whose latents each learn from which value on they are active."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

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
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.subjects.site import Site

Penalty = Literal["step", "quadratic", "tanh"]
PENALTIES: tuple[Penalty, ...] = ("step", "quadratic", "tanh")


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class JumpReLU(Recipe):
    """Keep what exceeds a threshold that each latent learns, and pay for how many do.

    ``z_i = π_i H(π_i - θ_i)``; the thresholds are learned through straight-through gradients with
    a rectangle of width ε (`jump`). With V the data's variance, one of three penalties joins
    ``|x - x̂|² / V``:

    - ``step``: ``λ L0``;
    - ``quadratic``: ``λ (L0 / target - 1)²``, L0 a batch's mean;
    - ``tanh``: ``λ sum_i tanh(4 z_i)``, which teaches the encoder too.

    Decoder rows have unit length; it starts as `TopK` does (ours: there, the encoder does not
    subtract `b_dec`).

    Reference: Rajamanoharan et al. 2024, "Jumping ahead", section 3 and appendix on training;
    the values for unit mean squared norm of Lieberum et al. 2024, section 3.
    """

    references: ClassVar[tuple[str, ...]] = ("rajamanoharan2024jumprelu", "lieberum2024")

    penalty: Penalty = "quadratic"
    """Which penalty; one that aims at an L0 needs no search for λ (ours)."""
    coefficient: float = 1.0
    """λ: for ``step`` the share of the variance that one more active latent must explain."""
    target_l0: float = 32.0
    """Mean number of active latents that ``quadratic`` aims at; the others ignore it."""
    bandwidth: float = 1.7
    """ε, in units of the root mean square of a coordinate, which is what the pre-activation of a
    random direction has (ours: what lies within ε of a threshold is then the same share in every
    dimension). Lieberum et al. 2024 use 0.001 of the mean norm, 0.05 here, in runs of 10^6 steps;
    a short run sees too few pre-activations that near (ours: on the bundled model, width 512, L0
    16, 300 steps of 512 tokens, .788 explained at 0.011, .813 at 0.57, .850 at 1.7; TopK .850)."""
    window_stride: int = 4
    """Latents that are silent and within ε/2 of their threshold move it in every this many-th
    token alone, with as many times the weight: unbiased, and most of what a window costs (ours);
    1 is the papers' gradient."""
    initial_threshold: float = 1.1
    """In the units of the bandwidth (ours)."""
    threshold_rate: float = 1.0
    """Learning rate of the thresholds, as a multiple of the weights' (ours)."""

    def __post_init__(self) -> None:
        check_width(self.width)
        if self.penalty not in PENALTIES:
            raise ValueRangeError(
                f"penalty must be one of {', '.join(PENALTIES)}; got {self.penalty!r}. "
                "Use 'quadratic' to aim at an L0."
            )
        check_coefficient("coefficient", self.coefficient, "1 (quadratic) or 1e-3 (step, tanh)")
        check_positive("bandwidth", self.bandwidth, "1.7")
        check_coefficient("initial_threshold", self.initial_threshold, "1.1")
        check_positive("threshold_rate", self.threshold_rate, "1")
        if not 0 < self.target_l0 <= self.width:
            raise ValueRangeError(
                f"target_l0 must be above 0 and at most the width, {self.width}; got "
                f"{self.target_l0}. Use 16 to 64 for a residual stream."
            )

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary for activations of mean norm sqrt(d); see `Recipe.build`."""
        decoder = unit_rows(self.width, d_out, generator)
        start = decoder.new_full((self.width,), self.initial_threshold)
        return tied(self, decoder, JumpReLUActivation(start), d_in, data_mean, site)
