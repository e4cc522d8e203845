"""The dictionaries that `fit` can make."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    ReLUActivation,
    Sparsifier,
    TopKActivation,
)
from modelassay.subjects.site import Site

__all__ = ["RECIPES", "BatchTopK", "ReLUL1", "Recipe", "TopK", "unit_rows"]


@final
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
        _check_k(self.k, self.width)

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
        return _tied(self, decoder, TopKActivation(self.k), d_in, data_mean, site)


@final
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
        _check_k(self.k, self.width)

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
        return _tied(self, decoder, BatchTopKActivation(self.k), d_in, data_mean, site)


@final
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
        _check_width(self.width)
        if not (math.isfinite(self.l1_coefficient) and self.l1_coefficient >= 0):
            raise ValueRangeError(
                f"l1_coefficient must be finite and at least 0; got {self.l1_coefficient}. "
                "Use about 5."
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
        length = 1.0 if self.frozen_decoder else 0.1
        decoder = length * unit_rows(self.width, d_out, generator)
        return _tied(self, decoder, ReLUActivation(), d_in, data_mean, site)


RECIPES: tuple[type[TopK | BatchTopK | ReLUL1], ...] = (TopK, BatchTopK, ReLUL1)


def unit_rows(n_rows: int, d: int, generator: torch.Generator) -> Float[Tensor, "{n_rows} {d}"]:
    """Directions drawn uniformly from the unit sphere."""
    rows = torch.randn(n_rows, d, generator=generator, device=generator.device)
    return rows / rows.norm(dim=1, keepdim=True)


def _tied(
    recipe: Recipe,
    decoder: Tensor,
    activation: Sparsifier,
    d_in: int,
    data_mean: Tensor,
    site: Site | None,
) -> Dictionary:
    """A dictionary whose encoder is its decoder's transpose."""
    width, d_out = decoder.shape
    if d_in != d_out or data_mean.shape != (d_in,):
        raise ShapeError(
            "d_in, d_out and the length of data_mean must be the same; got "
            f"{d_in}, {d_out} and {list(data_mean.shape)}. Fit a dictionary on its own site."
        )
    return Dictionary(
        W_enc=decoder.t(),
        b_enc=decoder.new_zeros(width),
        W_dec=decoder,
        b_dec=data_mean.to(decoder),
        activation=activation.to(decoder.device),
        reads=site,
        writes=site,
        frozen_decoder=recipe.frozen_decoder,
        recipe=recipe,
    )


def _check_width(width: int) -> None:
    if width < 1:
        raise ValueRangeError(f"width must be at least 1; got {width}. Use 8 to 64 times d.")


def _check_k(k: int, width: int) -> None:
    _check_width(width)
    if not 1 <= k <= width:
        raise ValueRangeError(
            f"k must be between 1 and the width, {width}; got {k}. Use 16 to 64 for a residual "
            "stream."
        )
