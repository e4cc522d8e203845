"""The training step's way through a dictionary: sparse wherever that is the faster one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.encoders import encode_above, encode_slots, jump
from modelassay.decompositions.kernels import encode_batch_topk, encode_topk, sparse_decode
from modelassay.decompositions.nested import nested_decode
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    GroupMaxActivation,
    JumpReLUActivation,
    TopKActivation,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCodes:
    """The latents' values on a batch, differentiable."""

    values: Float[Tensor, "*selected"]
    indices: Int[Tensor, "*selected"] | None = None
    """The latent of each value; None where all are there."""
    offsets: Int[Tensor, " token"] | None = None
    """Start of every token's entries, for bags."""
    active: Float[Tensor, "*selected"] | None = None
    """1 where a latent with a learned threshold is active; its gradient is straight-through."""

    def decode(self, W_dec: Float[Tensor, "width d_out"]) -> Float[Tensor, "token d_out"]:
        """The reconstruction without its bias."""
        if self.indices is None:
            return self.values @ W_dec
        return sparse_decode(self.values, self.indices, W_dec, self.offsets)

    def decode_nested(
        self, W_dec: Float[Tensor, "width d_out"], prefixes: Sequence[int]
    ) -> Float[Tensor, "prefix token d_out"]:
        """The reconstructions by the first latents without their bias, for every prefix."""
        assert self.indices is not None  # prefixes come with a selection
        return nested_decode(self.values, self.indices, W_dec, prefixes, self.offsets)


def encode_batch(
    dictionary: Dictionary,
    x: Float[Tensor, "token d_in"],
    buffer: Float[Tensor, "chunk width"],
    bandwidth: float,
) -> BatchCodes:
    """Codes of a batch as training sees them.

    Args:
        dictionary: the one that is trained.
        x: activations.
        buffer: memory for the pre-activations of some tokens.
        bandwidth: of straight-through gradients, in units of pre-activations.
    """
    W_enc, b_enc = dictionary.W_enc, dictionary.b_enc
    centre = dictionary.b_dec if dictionary.apply_b_dec_to_input else None
    match dictionary.activation:
        case TopKActivation(k=k):
            values, indices = encode_topk(x, W_enc, b_enc, k, centre=centre, buffer=buffer)
            return BatchCodes(values=values, indices=indices)
        case BatchTopKActivation(k=k):
            values, indices, offsets = encode_batch_topk(
                x, W_enc, b_enc, k, centre=centre, buffer=buffer
            )
            return BatchCodes(values=values, indices=indices, offsets=offsets)
        case AbsTopKActivation() | GroupMaxActivation() as activation:
            values, indices = encode_slots(
                x, W_enc, b_enc, activation.select, centre=centre, buffer=buffer
            )
            return BatchCodes(values=values, indices=indices)
        case JumpReLUActivation(threshold=threshold):
            # Entries a little below the threshold have value 0 and yet move it.
            bound = threshold.detach() - bandwidth / 2
            found = encode_above(x, W_enc, b_enc, bound, centre=centre, buffer=buffer)
            if found is None:
                values, active = jump(dense_pre_activations(dictionary, x), threshold, bandwidth)
                return BatchCodes(values=values, active=active)
            pre, indices, offsets = found
            values, active = jump(pre, threshold.index_select(0, indices), bandwidth)
            return BatchCodes(values=values, indices=indices, offsets=offsets, active=active)
        case _:
            return BatchCodes(values=dense_pre_activations(dictionary, x).relu())


def dense_pre_activations(
    dictionary: Dictionary, x: Float[Tensor, "token d_in"]
) -> Float[Tensor, "token width"]:
    """All pre-activations, at the cost of one product forward and one backward."""
    if not dictionary.apply_b_dec_to_input:
        return torch.addmm(dictionary.b_enc, x, dictionary.W_enc)
    # Moving the centre into the bias saves the product that x's gradient would cost.
    bias = dictionary.b_enc - dictionary.b_dec @ dictionary.W_enc
    return torch.addmm(bias, x, dictionary.W_enc)
