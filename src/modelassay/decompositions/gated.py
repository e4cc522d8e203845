"""The sparsifier of gated dictionaries: which latents are active is apart from how much."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.encoders import encode_above
from modelassay.decompositions.selection import above, pad_bags
from modelassay.decompositions.sparsifier import Sparsifier, register_sparsifier


@final
@register_sparsifier
class GatedActivation(Sparsifier):
    """Where a latent's gate is open, a value of a gain and an offset of its own.

    With the pre-activation π as the gate: ``z_i = H(π_i) relu(exp(r_i) π_i + o_i)``.

    The reference has two encoders with tied directions, the gate ``π = x̃ W + b_gate`` and the
    magnitude ``m = x̃ (W exp(r)) + b_mag`` with x̃ the centred activation. Since ``x̃ W = π -
    b_gate``, that magnitude is ``exp(r) π + (b_mag - exp(r) b_gate)``: the same function with
    ``o = b_mag - exp(r) b_gate`` and ``b_enc = b_gate``, and one of π alone.

    Reference: Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse
    autoencoders", section 3.2.
    """

    kind = "gated"
    label = "Gated"
    values_are_pre_activations = False
    log_gain: Float[nn.Parameter, " width"]
    """r."""
    offset: Float[nn.Parameter, " width"]
    """o, in units of pre-activations."""

    def __init__(self, log_gain: Float[Tensor, " width"], offset: Float[Tensor, " width"]) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(log_gain.detach().clone())
        self.offset = nn.Parameter(offset.detach().clone())

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        gates, indices, offsets = above(pre, 0.0)
        return pad_bags(self._magnitudes(gates, indices), indices, offsets)

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch with their gates; no gradient of the values closes or opens a gate."""
        bound = torch.zeros_like(batch.b_enc)
        found = encode_above(
            batch.x, batch.W_enc, batch.b_enc, bound, centre=batch.centre, buffer=batch.buffer
        )
        if found is None:
            gates = batch.pre_activations()
            values = self._magnitudes(gates) * (gates > 0)
            return BatchCodes(values=values, gates=gates)
        gates, indices, offsets = found
        values = self._magnitudes(gates, indices)
        return BatchCodes(values=values, indices=indices, offsets=offsets, gates=gates)

    def _magnitudes(
        self, gates: Float[Tensor, "*selected"], indices: Int[Tensor, "*selected"] | None = None
    ) -> Float[Tensor, "*selected"]:
        log_gain, offset = self.log_gain, self.offset
        if indices is not None:
            log_gain, offset = log_gain.index_select(0, indices), offset.index_select(0, indices)
        return (log_gain.exp() * gates + offset).relu()

    def in_units_of_pre_activations(self) -> tuple[Tensor, ...]:
        """The offsets: a gain has no unit."""
        return (self.offset,)
