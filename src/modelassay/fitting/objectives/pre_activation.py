"""The pre-activation loss: dead latents are pushed to where they would fire."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.sparsifiers import GroupMaxActivation, JumpReLUActivation
from modelassay.fitting.objectives.objective import Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class PreActivation:
    """How far dead latents stay below what they must exceed to fire.

    `λ mean_t Σ_{i dead} relu(θ_ti - π_ti) |d_i| / V`, π the pre-activation and d the decoder row,
    detached. θ is a JumpReLU's threshold, which it teaches too, and 0 for ReLU and gates. Where
    latents are compared, θ is the smallest value that won (ours): of the token, of the group for
    GroupMax, of the batch for BatchTopK; and |π| takes π's place where values have signs. Dead
    latents alone get a gradient from it; it is 0 while there are none.

    Reference:
        Conerly et al. 2025, "Circuits updates: January", "Dictionary learning optimization
        techniques" (there for JumpReLU alone, with λ = 3e-6, in runs of 10^5 steps and more).
    """

    coefficient: float = 3e-3
    """λ, for activations scaled to a mean norm of sqrt(d) (ours, for runs of 10^3 steps, in which
    Adam still remembers the large gradients from before a latent died)."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        dictionary, dead = forward.dictionary, forward.dead
        x = forward.activations
        if not len(dead):
            return x.new_zeros(())
        if dictionary.apply_b_dec_to_input:
            x = x - dictionary.b_dec.detach()
        columns = dictionary.W_enc.t().index_select(0, dead).t()
        pre = torch.addmm(dictionary.b_enc.index_select(0, dead), x, columns)
        if dictionary.activation.signed:
            pre = pre.abs()
        norms = dictionary.W_dec.detach().index_select(0, dead).norm(dim=1)
        missing = ((_bar(forward) - pre).relu() @ norms).sum()
        return self.coefficient * missing / (len(x) * forward.total_variance)


def _bar(forward: Forward) -> Tensor:
    """What each dead latent must exceed; of a shape that broadcasts to [token, dead]."""
    activation, dead = forward.dictionary.activation, forward.dead
    if isinstance(activation, JumpReLUActivation):
        return activation.threshold.index_select(0, dead)
    values = forward.values.detach().abs()
    if not activation.compares_latents or not values.numel():
        return values.new_zeros(())
    if values.ndim == 1:
        return values.min()
    if isinstance(activation, GroupMaxActivation):
        return values.index_select(1, dead // (forward.dictionary.width // activation.k))
    # A slot of value 0 is empty: there, whatever is above 0 wins.
    return values.amin(1, keepdim=True)
