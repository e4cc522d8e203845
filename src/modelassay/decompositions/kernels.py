"""Sparse encoder and decoder products, and gradients that touch only the active latents.

With k of `width` latents active, one step needs a single dense product: the encoder's. All else
is O(tokens * k * d): the decoder is a weighted sum of k rows, the gradient of a code value is one
dot product, and the gradient of a weight row is a sum over the tokens on which its latent was
active, taken after sorting the active entries by latent. No dense ``[token, width]`` gradient
exists. Everything equals the dense reference (tested in float64).

Selections come as slots or as bags (see `selection`): ``*selected`` is ``token slot`` or
``entry``, and `offsets` is given for bags and None for slots.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.decompositions.selection import above, guess_bound, keep_largest, rows_of, topk

_CHUNK_TOKENS = 1024  # rows of pre-activations held at once on CPU: ours, measured


def sparse_decode(
    values: Float[Tensor, "*selected"],
    indices: Int[Tensor, "*selected"],
    weight: Float[Tensor, "width d_out"],
    offsets: Int[Tensor, " token"] | None = None,
) -> Float[Tensor, "token d_out"]:
    """``codes @ weight`` for sparse codes, differentiable in the values and the weight.

    Args:
        values: the codes' values; zeros add nothing.
        indices: the latents that they belong to.
        weight: one row per latent.
        offsets: start of every token's run, for bags.
    """
    if not indices.numel():
        n_tokens = indices.shape[0] if offsets is None else offsets.numel()
        # Keeps the graph whole, so that a backward pass finds zeros rather than nothing.
        return weight.new_zeros(n_tokens, weight.shape[1]) + 0 * (values.sum() + weight[:0].sum())
    decoded = F.embedding_bag(
        indices, weight.detach(), offsets, mode="sum", per_sample_weights=values.to(weight.dtype)
    )
    if not weight.requires_grad:
        return decoded
    return _WithWeightGradient.apply(decoded, weight, values.detach(), indices, offsets)


class _WithWeightGradient(torch.autograd.Function):
    """The identity on what was decoded; its backward pass adds the gradient of the weight."""

    @staticmethod
    def forward(
        ctx: Any,
        decoded: Tensor,
        weight: Tensor,
        values: Tensor,
        indices: Tensor,
        offsets: Tensor | None,
    ) -> Tensor:
        ctx.width = weight.shape[0]
        ctx.save_for_backward(values, indices, offsets)
        return decoded.view_as(decoded)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        values, indices, offsets = ctx.saved_tensors
        weight = _sum_by_latent(values, indices, offsets, gradient, ctx.width)
        return gradient, weight, None, None, None


def encode_topk(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    k: int,
    *,
    centre: Float[Tensor, " d_in"] | None = None,
    buffer: Float[Tensor, "chunk width"] | None = None,
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """TopK codes ``relu(topk((x - centre) @ W_enc + b_enc))`` with a sparse backward pass.

    Args:
        x: activations.
        W_enc: encoder; the gradient is made without a copy when its columns are contiguous.
        b_enc: encoder bias.
        k: entries per token.
        centre: subtracted from x first; its gradient costs one product of a matrix and a vector.
        buffer: memory for the pre-activations of as many tokens as it has rows, reused.

    Returns:
        Values and latents as slots. A selected entry that is not positive has value 0: it is not
        active and carries no gradient.
    """
    with torch.no_grad():
        chunks = pre_activation_chunks(x, W_enc, b_enc, centre, buffer)
        found = [topk(chunk, k) for chunk in chunks]
        values = torch.cat([chunk_values for chunk_values, _ in found]).relu_()
        indices = torch.cat([chunk_indices for _, chunk_indices in found])
    return with_encoder_gradient(values, indices, x, W_enc, b_enc, centre), indices


def encode_batch_topk(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    k: int,
    *,
    centre: Float[Tensor, " d_in"] | None = None,
    buffer: Float[Tensor, "chunk width"] | None = None,
) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
    """BatchTopK codes: the ``k * tokens`` largest positive pre-activations of the batch, as bags.

    Arguments and gradients are those of `encode_topk`.

    Returns:
        Values, latents, and the offset of every token's first entry.
    """
    count = k * x.shape[0]
    with torch.no_grad():
        bound: float | None = None
        bags: list[tuple[Tensor, Tensor, Tensor]] = []
        for chunk in pre_activation_chunks(x, W_enc, b_enc, centre, buffer):
            bound = guess_bound(chunk, k) if bound is None else bound
            bags.append(above(chunk, bound))
        if sum(values.numel() for values, _, _ in bags) < count:
            # The first chunk's tokens were not typical of the batch.
            chunks = pre_activation_chunks(x, W_enc, b_enc, centre, buffer)
            bags = [above(chunk, 0.0) for chunk in chunks]
        values, indices, offsets = keep_largest(*join_bags(bags), count=count)
    values = with_encoder_gradient(values, indices, x, W_enc, b_enc, centre, offsets)
    return values, indices, offsets


def with_encoder_gradient(
    values: Float[Tensor, "*selected"],
    indices: Int[Tensor, "*selected"],
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    centre: Float[Tensor, " d_in"] | None = None,
    offsets: Int[Tensor, " token"] | None = None,
) -> Float[Tensor, "*selected"]:
    """Give selected values the gradient of ``(x - centre) @ W_enc + b_enc`` at their places.

    The values are returned as they are. Only those other than 0 carry a gradient, and x gets one
    only if it requires it.
    """
    return _WithEncoderGradient.apply(values, indices, x, W_enc, b_enc, centre, offsets)


class _WithEncoderGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        indices: Tensor,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        centre: Tensor | None,
        offsets: Tensor | None,
    ) -> Tensor:
        # The weight is needed for the gradients of x and of the centre alone.
        ctx.save_for_backward(values, indices, x, W_enc, centre, offsets)
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        values, indices, x, W_enc, centre, offsets = ctx.saved_tensors
        _, _, needs_x, needs_weight, _, needs_centre, _ = ctx.needs_input_grad
        gradient = gradient * (values != 0)
        centred = x if centre is None else x - centre
        grad_weight, grad_bias = sparse_encoder_gradient(
            gradient, indices, centred, W_enc.shape[1], offsets, weight=needs_weight
        )
        grad_x = sparse_decode(gradient, indices, W_enc.t(), offsets) if needs_x else None
        grad_centre = -(W_enc @ grad_bias) if needs_centre else None
        return None, None, grad_x, grad_weight, grad_bias, grad_centre, None


def sparse_encoder_gradient(
    gradient: Float[Tensor, "*selected"],
    indices: Int[Tensor, "*selected"],
    x: Float[Tensor, "token d_in"],
    width: int,
    offsets: Int[Tensor, " token"] | None = None,
    *,
    weight: bool = True,
) -> tuple[Float[Tensor, "d_in {width}"] | None, Float[Tensor, " {width}"]]:
    """Gradients of an encoder's weight and bias from those of its selected pre-activations.

    Args:
        gradient: of the loss by every selected pre-activation.
        indices: the latents that they belong to.
        x: the encoder's input, centred if the encoder centres it.
        width: number of latents.
        offsets: start of every token's run, for bags.
        weight: whether the weight's gradient is wanted.

    Returns:
        Gradient of the weight, with contiguous columns, and of the bias.
    """
    bias = gradient.new_zeros(width).index_add_(0, indices.flatten(), gradient.flatten())
    if not weight:
        return None, bias
    return _sum_by_latent(gradient, indices, offsets, x, width).t(), bias


def _sum_by_latent(
    values: Tensor, indices: Tensor, offsets: Tensor | None, rows: Tensor, width: int
) -> Tensor:
    """For every latent, the sum of the tokens' rows weighted by its values: ``codes.T @ rows``."""
    if not indices.numel():
        return rows.new_zeros(width, rows.shape[1])
    latents, order = indices.flatten().sort()
    if offsets is None:
        tokens = order.div(indices.shape[1], rounding_mode="floor")
    else:
        tokens = rows_of(offsets, indices.numel())[order]
    # A search rather than a count: `bincount` makes the host wait for an accelerator.
    starts = torch.searchsorted(latents, torch.arange(width, device=latents.device))
    return F.embedding_bag(
        tokens,
        rows,
        starts,
        mode="sum",
        per_sample_weights=values.flatten()[order].to(rows.dtype),
    )


def pre_activation_chunks(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, centre: Tensor | None, buffer: Tensor | None
) -> Iterator[Tensor]:
    """The dense pre-activations, some tokens at a time, always in the same memory."""
    if buffer is None:
        # A launch costs more than memory on an accelerator: there the batch is one chunk.
        rows = min(x.shape[0], _CHUNK_TOKENS) if x.device.type == "cpu" else x.shape[0]
        buffer = x.new_empty(max(rows, 1), W_enc.shape[1])
    centred = x if centre is None else x - centre
    # An empty batch is one empty chunk.
    for chunk in centred.split(buffer.shape[0]):
        yield torch.addmm(b_enc, chunk, W_enc, out=buffer[: chunk.shape[0]])


def join_bags(bags: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Bags of consecutive tokens as one."""
    starts = torch.tensor([0] + [values.numel() for values, _, _ in bags]).cumsum(0).tolist()
    return (
        torch.cat([values for values, _, _ in bags]),
        torch.cat([indices for _, indices, _ in bags]),
        torch.cat([offsets + start for (_, _, offsets), start in zip(bags, starts, strict=False)]),
    )
