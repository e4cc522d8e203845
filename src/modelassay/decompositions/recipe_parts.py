"""What recipes share: their start, and what they refuse."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.subjects.site import Site


def unit_rows(n_rows: int, d: int, generator: torch.Generator) -> Float[Tensor, "{n_rows} {d}"]:
    """Directions drawn uniformly from the unit sphere."""
    rows = torch.randn(n_rows, d, generator=generator, device=generator.device)
    return rows / rows.norm(dim=1, keepdim=True)


def tied(
    recipe: Recipe,
    decoder: Float[Tensor, "width d"],
    activation: Sparsifier,
    d_in: int,
    data_mean: Float[Tensor, " d"],
    site: Site | None,
    name: str | None = None,
) -> Dictionary:
    """A dictionary whose encoder is its decoder's transpose.

    Raises:
        ShapeError: if it would read another width than it writes.
    """
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
        name=name,
    )


def check_width(width: int) -> None:
    """Refuse a dictionary of nothing.

    Raises:
        ValueRangeError: if the width is less than 1.
    """
    if width < 1:
        raise ValueRangeError(f"width must be at least 1; got {width}. Use 8 to 64 times d.")


def check_k(k: int, width: int) -> None:
    """Refuse a k that the width cannot give.

    Raises:
        ValueRangeError: if k is not between 1 and the width.
    """
    check_width(width)
    if not 1 <= k <= width:
        raise ValueRangeError(
            f"k must be between 1 and the width, {width}; got {k}. Use 16 to 64 for a residual "
            "stream."
        )


def check_coefficient(name: str, value: float, usual: str) -> None:
    """Refuse a penalty's coefficient that is no number or would reward.

    Raises:
        ValueRangeError: if it is negative, infinite or NaN.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueRangeError(
            f"{name} must be finite and at least 0; got {value}. Use about {usual}."
        )


def check_positive(name: str, value: float, usual: str) -> None:
    """Refuse what must be a positive number and is not.

    Raises:
        ValueRangeError: if it is not above 0, infinite or NaN.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueRangeError(f"{name} must be finite and above 0; got {value}. Use about {usual}.")


def check_free_decoder(free: bool, *, frozen: bool) -> None:
    """Refuse a decoder that must move and must not.

    Raises:
        ValueRangeError: if it is both.
    """
    if free and frozen:
        raise ValueRangeError(
            "A decoder must not be both free and frozen; got free_decoder=True and "
            "frozen_decoder=True. Leave one of them out."
        )
