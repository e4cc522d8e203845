"""Where on a curve latents are placed: as densely as the data lie there, or as the model looks?"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError

_BINS = 20  # of t (ours)
_TINY = 1e-12
_SILENT = 1e-6  # a latent whose largest value is below this share of the largest has no centre


def centres(
    values: Float[Tensor, "input latent"], t: Float[Tensor, " input"]
) -> Float[Tensor, " centre"]:
    """The t at which each latent is largest, of the latents that are ever on."""
    largest, where = values.abs().max(0)
    return t[where[largest > _SILENT * largest.amax()]]


def resolution_score(
    found: Float[Tensor, " centre"],
    *,
    data: Float[Tensor, " input"],
    model: Float[Tensor, " knot"],
) -> float:
    """``S_res = KL(q || data) / (KL(q || data) + KL(q || model))`` in [0, 1].

    1 if latents are as dense in t as the model's knots, 0 if as the data. Densities are shares of
    20 bins of t in [0, 1); NaN if no centre was found, or if all three densities are the same.

    Raises:
        ValueRangeError: if a bin holds no data, or no knot: the divergence from it is infinite.
    """
    if not len(found):
        return math.nan
    q, of_data, of_model = (_shares(t) for t in (found, data, model))
    if not bool((of_data > 0).all() and (of_model > 0).all()):
        raise ValueRangeError(
            f"Data and knots must lie in each of {_BINS} bins of t; got an empty one. "
            "Spread them over [0, 1)."
        )
    from_data, from_model = (float((q * (q / p).log()).nansum()) for p in (of_data, of_model))
    total = from_data + from_model
    return from_data / total if total > _TINY else math.nan


def _shares(t: Tensor) -> Tensor:
    bins = (t * _BINS).long().clamp(0, _BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS).double()
    return counts / counts.sum()
