"""Encoders of one batch in training whose selection is neither TopK nor BatchTopK.

All have the sparse backward pass of `kernels`: only what was selected carries a gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.decompositions.bags import join_bags, rows_of
from modelassay.decompositions.kernels import pre_activation_chunks, with_encoder_gradient
from modelassay.decompositions.screening import screened_above
from modelassay.decompositions.selection import above

_CROWDED_SHARE = 1 / 5  # of entries; dense products are faster above it: ours, measured
_SAMPLE = 64  # tokens that show whether a batch is crowded: ours


def encode_slots(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    select: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    centre: Float[Tensor, " d_in"] | None = None,
    buffer: Float[Tensor, "chunk width"] | None = None,
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """Codes by any sparsifier that fills the same number of slots for every token.

    Args:
        x: activations.
        W_enc: encoder.
        b_enc: encoder bias.
        select: from pre-activations to values, which are pre-activations or 0, and latents.
        centre: subtracted from x first.
        buffer: memory for the pre-activations of as many tokens as it has rows, reused.

    Returns:
        Values and latents. Entries of value 0 are not active and carry no gradient.
    """
    with torch.no_grad():
        chunks = pre_activation_chunks(x, W_enc, b_enc, centre, buffer)
        found = [select(chunk) for chunk in chunks]
        values = torch.cat([chunk_values for chunk_values, _ in found])
        indices = torch.cat([chunk_indices for _, chunk_indices in found])
    return with_encoder_gradient(values, indices, x, W_enc, b_enc, centre), indices


def encode_above(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    bound: Float[Tensor, " width"],
    *,
    centre: Float[Tensor, " d_in"] | None = None,
    buffer: Float[Tensor, "chunk width"] | None = None,
    margin: float = 0.0,
    stride: int = 1,
) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]] | None:
    """All pre-activations greater than their latent's bound, and of some tokens a few more.

    Args:
        x: activations.
        W_enc: encoder.
        b_enc: encoder bias.
        bound: one per latent; gets no gradient.
        centre: subtracted from x first.
        buffer: memory for the pre-activations of as many tokens as it has rows, reused.
        margin: in the tokens 0, stride, 2 stride … all that is greater than ``bound - margin``.
        stride: see margin.

    Returns:
        Pre-activations, latents, and the offset of every token's first entry; None if so many
        pass that dense products are faster, which is looked up on a sample.
    """
    with torch.no_grad():
        # With the bounds in the bias, one comparison with 0 does for all columns.
        bias = b_enc - bound
        lifts = torch.zeros_like(x[:, :1])
        lifts[::stride] = margin
        few = slice(None, None, len(x) // _SAMPLE | 1)  # odd: of all residues of the stride
        sample = next(pre_activation_chunks(x[few], W_enc, bias, centre, buffer))
        if int((sample > -lifts[few][: len(sample)]).sum()) > _CROWDED_SHARE * sample.numel():
            return None
        found = screened_above(x, W_enc, bias, -lifts, centre, buffer)
        if found is None:
            found = _above(x, W_enc, bias, lifts, centre, buffer)
        excess, indices, offsets = found
        values = excess + bound[indices]
    values = with_encoder_gradient(values, indices, x, W_enc, b_enc, centre, offsets)
    return values, indices, offsets


def _above(
    x: Tensor,
    W_enc: Tensor,
    bias: Tensor,
    lifts: Tensor,
    centre: Tensor | None,
    buffer: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """All pre-activations that exceed 0 once their token's lift is added."""
    bags, start = [], 0
    for chunk in pre_activation_chunks(x, W_enc, bias, centre, buffer):
        lift = lifts[start : start + len(chunk)]
        values, indices, offsets = above(chunk.add_(lift), 0.0)
        bags.append((values - lift.squeeze(1)[rows_of(offsets, values.numel())], indices, offsets))
        start += len(chunk)
    return join_bags(bags)


def jump(
    pre: Float[Tensor, "*selected"],
    threshold: Float[Tensor, "*threshold"],
    bandwidth: float,
    silent_weight: float = 1.0,
) -> tuple[Float[Tensor, "*selected"], Float[Tensor, "*selected"]]:
    """JumpReLU and its step, with straight-through gradients to the threshold.

    With z the pre-activation, θ the threshold, ε the bandwidth, H the step function and
    ``window = 1 where |z - θ| < ε/2``:

    - ``value = z H(z - θ)``, ``d value / dz = H(z - θ)``, ``d value / dθ = -(θ / ε) window``;
    - ``active = H(z - θ)``, ``d active / dz = 0``, ``d active / dθ = -(1 / ε) window``.

    Args:
        pre: pre-activations, all of them or a selection that holds every one above ``θ - ε/2``.
        threshold: one per latent for dense pre-activations, or one per entry.
        bandwidth: ε, above 0.
        silent_weight: what entries at or below their threshold weigh in its gradient: as many
            times as there are tokens to each one whose silent entries are here.

    Returns:
        Values, and 1 where a latent is active, else 0.

    Reference: Rajamanoharan et al. 2024, "Jumping ahead", section 3.
    """
    return _Jump.apply(pre, threshold, bandwidth, silent_weight)


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, silent_weight: float
    ) -> tuple[Tensor, Tensor]:
        ctx.bandwidth, ctx.silent_weight = bandwidth, silent_weight
        ctx.save_for_backward(pre, threshold)
        active = (pre > threshold).to(pre.dtype)
        return pre * active, active

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        by_value, by_active = grad_outputs
        pre, threshold = ctx.saved_tensors
        excess = pre - threshold
        within = (excess.abs() < ctx.bandwidth / 2).to(pre.dtype) / ctx.bandwidth
        if ctx.silent_weight != 1:
            within = torch.where(excess > 0, within, ctx.silent_weight * within)
        grad_threshold = -(threshold * by_value + by_active) * within
        grad_threshold = grad_threshold.sum_to_size(threshold.shape)
        return by_value * (excess > 0), grad_threshold, None, None
