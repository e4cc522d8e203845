"""A batch in training: what a sparsifier sees of it, and what it makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.kernels import sparse_decode
from modelassay.decompositions.nested import nested_decode


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderBatch:
    """Activations in front of an encoder: the pre-activations are not made yet."""

    x: Float[Tensor, "token d_in"]
    W_enc: Float[Tensor, "d_in width"]
    b_enc: Float[Tensor, " width"]
    centre: Float[Tensor, " d_in"] | None = None
    """Subtracted from x first."""
    buffer: Float[Tensor, "chunk width"] | None = None
    """Memory for the pre-activations of as many tokens as it has rows, reused."""
    bandwidth: float = 0.0
    """Of straight-through gradients, in units of pre-activations."""
    window_stride: int = 1
    """Every which token shows what lies in the lower half of the bandwidth, weighing that much
    more."""
    W_dec: Float[Tensor, "width d_out"] | None = None
    """Decoder, for a sparsifier whose choice depends on what other latents explain."""
    k: int | None = None
    """Active latents a token in place of the sparsifier's own k, while a schedule lowers it."""

    def pre_activations(self) -> Float[Tensor, "token width"]:
        """All pre-activations, at the cost of one product forward and one backward."""
        if self.centre is None:
            return torch.addmm(self.b_enc, self.x, self.W_enc)
        # Moving the centre into the bias saves the product that x's gradient would cost.
        bias = self.b_enc - self.centre @ self.W_enc
        return torch.addmm(bias, self.x, self.W_enc)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCodes:
    """The latents' values on a batch, differentiable.

    They come dense, [token, latent], or as a selection in slots or bags (see `selection`).
    """

    values: Float[Tensor, "*selected"]
    indices: Int[Tensor, "*selected"] | None = None
    """The latent of each value; None where all are there."""
    offsets: Int[Tensor, " token"] | None = None
    """Start of every token's entries, for bags."""
    active: Float[Tensor, "*selected"] | None = None
    """1 where a latent with a learned threshold is active, else 0; its gradient is
    straight-through. None where thresholds are not learned."""
    gates: Float[Tensor, "*selected"] | None = None
    """The pre-activations at the same places, for a sparsifier whose values are others: a latent
    is active where its gate is positive. None where there are no gates."""

    def decode(self, W_dec: Float[Tensor, "width d_out"]) -> Float[Tensor, "token d_out"]:
        """The reconstruction without its bias."""
        if self.indices is None:
            return self.values @ W_dec
        return sparse_decode(self.values, self.indices, W_dec, self.offsets)

    def decode_nested(
        self, W_dec: Float[Tensor, "width d_out"], prefixes: Sequence[int]
    ) -> Float[Tensor, "prefix token d_out"]:
        """The reconstructions by the first latents without their bias, for every prefix."""
        if self.indices is None:
            starts = (0, *prefixes[:-1])
            blocks = [
                self.values[:, start:end] @ W_dec[start:end]
                for start, end in zip(starts, prefixes, strict=True)
            ]
            return torch.stack(blocks).cumsum(0)
        return nested_decode(self.values, self.indices, W_dec, prefixes, self.offsets)

    def weighted(self, weights: Float[Tensor, " width"]) -> Float[Tensor, "*selected"]:
        """Every value times its latent's weight."""
        return self.values * (weights if self.indices is None else weights[self.indices])
