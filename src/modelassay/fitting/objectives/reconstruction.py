"""Squared error of the reconstruction, or of several nested ones."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.fitting.objectives.objective import Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstruction:
    """Share of the variance that the reconstruction leaves.

    `mean_t |x_t - x̂_t|² / V` with V the mean squared distance of all data from their mean: 1
    for predicting the mean. A division by a constant, so that coefficients of other terms mean
    the same for all data.

    Reference:
        Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.
    """

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        # One pass that keeps nothing of the residual's size for the backward pass.
        squared = F.mse_loss(forward.reconstruction, forward.activations, reduction="sum")
        return squared / (len(forward.activations) * forward.total_variance)


@dataclass(frozen=True, kw_only=True, slots=True)
class NestedReconstruction:
    """Share of the variance that nested reconstructions leave, on average over the prefixes.

    `mean_m mean_t |x_t - x̂_m,t|² / V`, x̂_m the reconstruction by the first m latents alone.

    Reference:
        Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse
        autoencoders", section 3 (a sum there).
    """

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        if forward.nested is None:
            raise TypeError("A nested reconstruction must have prefixes; got none.")
        wanted = forward.activations.expand_as(forward.nested)
        squared = F.mse_loss(forward.nested, wanted, reduction="sum")
        n = len(forward.nested) * len(forward.activations)
        return squared / (n * forward.total_variance)
