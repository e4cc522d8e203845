"""The L1 penalty on latent values."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modelassay.fitting.objectives.objective import Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class L1:
    """Mean sum of the latents' values, each weighted with the norm of its decoder row.

    `λ mean_t Σ_i z_ti |d_i| / V`. The norm keeps the penalty from being dodged by large decoder
    rows and small values. With V, the data's total variance, the whole loss is the usual
    `|x - x̂|² + λ Σ z |d|` divided by a constant, so λ keeps its meaning in the literature, for
    activations scaled to a mean norm of sqrt(d). Nested dictionaries pay on average over them.

    Reference:
        Conerly et al. 2024, "Circuits updates: April", "Update on how we train SAEs".
    """

    coefficient: float
    """λ, about 5 in the reference."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        weights = forward.penalty_weights()
        penalty = forward.codes.weighted(weights).sum() / len(forward.activations)
        return self.coefficient * forward.sparsity_factor * penalty / forward.total_variance
