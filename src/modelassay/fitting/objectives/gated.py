"""The terms that teach gates: the values' own gradient does not reach them."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.batch import BatchCodes
from modelassay.fitting.objectives.objective import Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class GateL1:
    """Mean sum of the open gates' pre-activations: `λ mean_t Σ_i relu(π_ti) |d_i| / V`.

    For unit decoder rows the reference's penalty. Divided by V, the data's total variance, as
    `L1` is; it reaches the encoder alone, since magnitudes do not pay.

    Reference:
        Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders",
        section 3.2.
    """

    coefficient: float
    """λ, in the units of `L1`'s."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        weights = forward.penalty_weights().detach()
        penalty = _open_gates(forward).weighted(weights).sum() / len(forward.activations)
        return self.coefficient * forward.sparsity_factor * penalty / forward.total_variance


@dataclass(frozen=True, kw_only=True, slots=True)
class GateReconstruction:
    """Share of the variance that is left when the gates themselves are decoded.

    `mean_t |x_t - relu(π_t) W_dec - b_dec|² / V` with a detached decoder, so that gates learn to
    be open where their latent is needed, and the decoder does not learn from them. Nested
    dictionaries: the mean over them.

    Reference:
        Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders",
        section 3.2.
    """

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch."""
        W_dec, b_dec = forward.dictionary.W_dec.detach(), forward.dictionary.b_dec.detach()
        gates = _open_gates(forward)
        if forward.prefixes:
            decoded = gates.decode_nested(W_dec, forward.prefixes)
        else:
            decoded = gates.decode(W_dec).unsqueeze(0)
        squared = (forward.activations - b_dec - decoded).square().sum()
        n = len(decoded) * len(forward.activations)
        return squared / (n * forward.total_variance)


def _open_gates(forward: Forward) -> BatchCodes:
    """The gates' pre-activations where they are open, as codes."""
    gates = forward.codes.gates
    if gates is None:
        raise TypeError("A gate's term must have latents with gates; got none.")
    return replace(forward.codes, values=gates.relu())
