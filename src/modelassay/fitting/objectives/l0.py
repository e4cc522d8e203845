"""Penalties on how many latents are active, for latents with learned thresholds."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.fitting.objectives.objective import Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class L0:
    """Mean number of active latents: ``λ mean_t Σ_i H(π_ti - θ_i)``.

    Its gradient reaches the thresholds alone, through the straight-through step of `jump`. The
    reconstruction term being in units of the variance, λ is the share of it that one more active
    latent must explain: for centred data of unit mean squared norm, the λ of the reference.

    Reference:
        Rajamanoharan et al. 2024, "Jumping ahead", section 3.
    """

    coefficient: float
    """λ, about 1e-3."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        return self.coefficient * forward.sparsity_factor * mean_l0(forward)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetL0:
    """Squared relative distance of a batch's mean L0 from a target: ``λ (L0 / target - 1)²``.

    Reference:
        Rajamanoharan et al. 2024, "Jumping ahead", appendix on training to a fixed sparsity;
        this normalisation is that of dictionary_learning.
    """

    target: float
    coefficient: float
    """λ, about 1."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        distance = mean_l0(forward) / self.target - 1
        return self.coefficient * forward.sparsity_factor * distance.square()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tanh:
    """A smooth count of active latents: ``λ mean_t Σ_i tanh(c z_ti |d_i|)``.

    Unlike the step's, its gradient reaches encoder and thresholds. Values are of activations
    scaled to a mean norm of sqrt(d), as in the reference.

    Reference:
        Conerly et al. 2025, "Circuits updates: January", "Dictionary learning optimization
        techniques".
    """

    coefficient: float
    """λ, in the units of `L0`'s."""
    sharpness: float = 4.0
    """c."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        norms = forward.dictionary.W_dec.norm(dim=1)
        count = torch.tanh(self.sharpness * forward.codes.weighted(norms)).sum()
        return self.coefficient * forward.sparsity_factor * count / len(forward.activations)


def mean_l0(forward: Forward) -> Float[Tensor, ""]:
    """Mean number of active latents of a token, with the step's straight-through gradient."""
    if forward.codes.active is None:
        raise TypeError("An L0 penalty must have latents with learned thresholds; got none.")
    return forward.codes.active.sum() / len(forward.activations)
