"""AuxK: dead latents learn what the living ones leave."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.encoders import encode_slots
from modelassay.decompositions.kernels import encode_topk, sparse_decode
from modelassay.decompositions.selection import abs_topk, topk
from modelassay.fitting.objectives.objective import Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class AuxK:
    """Share of the residual's variance that the dead latents leave, when they predict it.

    With r = x - x̂, detached, and r̂ decoded without bias from the `min(d / 2, dead)` largest
    positive pre-activations among dead latents (in magnitude, where values have signs): `α mean
    |r - r̂|² / mean |r - mean r|²`. Dead latents alone get a gradient from it; it is 0 while there
    are none.

    A dead latent whose pre-activations are negative on every token learns nothing from it, as its
    rectified values are 0. Where every latent is chosen on its own (ReLU, gated) all dead ones
    are such, and with `straight_through` the others are treated alike: the values are the same,
    but the gradient passes as if they were not rectified (ours).

    Reference:
        Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.2; d / 2
        rather than a fixed 512 as in their released code's successors.
    """

    coefficient: float = 1 / 32
    """α (Gao et al. 2024, appendix A.2)."""
    straight_through: bool = False
    """Whether negative pre-activations pass on a gradient where latents are compared, too."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        if not len(forward.dead):
            return forward.activations.new_zeros(())
        residual = forward.residual().detach()
        dictionary, dead = forward.dictionary, forward.dead
        centre = dictionary.b_dec.detach() if dictionary.apply_b_dec_to_input else None
        # The dead latents are a small TopK dictionary of their own, on the residual.
        weights = (
            dictionary.W_enc.t().index_select(0, dead).t(),
            dictionary.b_enc.index_select(0, dead),
        )
        k = max(1, min(residual.shape[1] // 2, len(dead)))
        x, activation = forward.activations, dictionary.activation
        if activation.signed:
            values, indices = encode_slots(x, *weights, lambda pre: abs_topk(pre, k), centre=centre)
        elif activation.compares_latents and not self.straight_through:
            values, indices = encode_topk(x, *weights, k, centre=centre)
        else:
            values, indices = encode_slots(x, *weights, lambda pre: topk(pre, k), centre=centre)
            values = values + (values.relu() - values).detach()
        left = residual - sparse_decode(values, indices, dictionary.W_dec.index_select(0, dead))
        # A residual of no variance has nothing to teach; the floor only keeps 0 / 0 away.
        variance = (residual - residual.mean(0)).square().sum().clamp(min=1e-12)
        return self.coefficient * left.square().sum() / variance
