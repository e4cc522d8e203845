"""Sparse encoder and decoder products, and gradients that touch only the active latents.

With k of `width` latents active, one step needs a single dense product: the encoder's. All else
is O(tokens * k * d): the decoder is a weighted sum of k rows, the gradient of a code value is one
dot product, and the gradient of a weight row is a sum over the tokens on which its latent was
active, taken after sorting the active entries by latent. No dense ``[token, width]`` gradient
exists. Everything equals the dense reference (tested in float64).

Selections come as slots or as bags (see `bags`): ``*selected`` is ``token slot`` or ``entry``,
and `offsets` is given for bags and None for slots. The primitive operations are those of
`kernels_interface`, in plain PyTorch or in Triton.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.decompositions.bags import join_bags as join_bags
from modelassay.decompositions.kernels_interface import Kernels, kernels_for
from modelassay.decompositions.screening import screened_batch_topk, screened_topk
from modelassay.decompositions.selection import above, guess_bound, keep_largest, topk

_CHUNK_TOKENS = 1024  # rows of pre-activations held at once on CPU: ours, measured


def sparse_decode(
    values: Float[Tensor, "*selected"],
    indices: Int[Tensor, "*selected"],
    weight: Float[Tensor, "width d_out"],
    offsets: Int[Tensor, " token"] | None = None,
) -> Float[Tensor, "token d_out"]:
    """``codes @ weight`` for sparse codes, differentiable in the values and the weight.

    Args:
        values: the codes' values; zeros add nothing, and yet get the gradient of their place.
        indices: the latents that they belong to.
        weight: one row per latent.
        offsets: start of every token's run, for bags.
    """
    kernels = kernels_for(weight.device)
    return _SparseDecode.apply(values, indices, weight, offsets, kernels)


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        indices: Tensor,
        weight: Tensor,
        offsets: Tensor | None,
        kernels: Kernels,
    ) -> Tensor:
        # Backward passes on an accelerator run in another thread, which knows no `using_kernels`.
        ctx.kernels = kernels
        ctx.save_for_backward(values, indices, weight, offsets)
        return kernels.weighted_sum(values, indices, weight, offsets)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        values, indices, weight, offsets = ctx.saved_tensors
        by_values = by_weight = None
        if ctx.needs_input_grad[0]:
            by_values = ctx.kernels.sampled_products(gradient, weight, indices, offsets)
            by_values = by_values.to(values.dtype)
        if ctx.needs_input_grad[2]:
            by_weight = ctx.kernels.sum_by_latent(
                values, indices, gradient, weight.shape[0], offsets
            )
        return by_values, None, by_weight, None, None


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
        found = screened_topk(x, W_enc, b_enc, k, centre, buffer)
        if found is None:
            chunks = pre_activation_chunks(x, W_enc, b_enc, centre, buffer)
            parts = [topk(chunk, k) for chunk in chunks]
            found = (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))
        values, indices = found[0].relu_(), found[1]
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
        found = screened_batch_topk(x, W_enc, b_enc, k, centre, buffer)
        if found is None:
            found = _at_least(k, x, W_enc, b_enc, centre, buffer)
        values, indices, offsets = keep_largest(*found, count=count)
    values = with_encoder_gradient(values, indices, x, W_enc, b_enc, centre, offsets)
    return values, indices, offsets


def _at_least(
    k: int,
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    centre: Tensor | None,
    buffer: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """All pre-activations above a bound that at least k a token exceed, or all positive ones."""
    bound: float | None = None
    bags: list[tuple[Tensor, Tensor, Tensor]] = []
    for chunk in pre_activation_chunks(x, W_enc, b_enc, centre, buffer):
        bound = guess_bound(chunk, k) if bound is None else bound
        bags.append(above(chunk, bound))
    if sum(values.numel() for values, _, _ in bags) < k * len(x):
        # The first chunk's tokens were not typical of the batch.
        chunks = pre_activation_chunks(x, W_enc, b_enc, centre, buffer)
        bags = [above(chunk, 0.0) for chunk in chunks]
    return join_bags(bags)


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
    kernels = kernels_for(x.device)
    return _WithEncoderGradient.apply(values, indices, x, W_enc, b_enc, centre, offsets, kernels)


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
        kernels: Kernels,
    ) -> Tensor:
        ctx.kernels = kernels
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
        _, _, needs_x, needs_weight, _, needs_centre, _, _ = ctx.needs_input_grad
        gradient = gradient * (values != 0)
        by_bias = _sum_of_each(gradient, indices, W_enc.shape[1])
        by_x = by_weight = by_centre = None
        if needs_x:
            by_x = ctx.kernels.weighted_sum(gradient, indices, W_enc.t(), offsets)
        if needs_weight:
            centred = x if centre is None else x - centre
            by_weight = ctx.kernels.sum_by_latent(
                gradient, indices, centred, W_enc.shape[1], offsets
            ).t()
        if needs_centre:
            by_centre = -(W_enc @ by_bias)
        return None, None, by_x, by_weight, by_bias, by_centre, None, None


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
    bias = _sum_of_each(gradient, indices, width)
    if not weight:
        return None, bias
    kernels = kernels_for(x.device)
    return kernels.sum_by_latent(gradient, indices, x, width, offsets).t(), bias


def _sum_of_each(values: Tensor, indices: Tensor, width: int) -> Tensor:
    """For every latent, the sum of its values."""
    return values.new_zeros(width).index_add_(0, indices.flatten(), values.flatten())


def pre_activation_chunks(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, centre: Tensor | None, buffer: Tensor | None
) -> Iterator[Tensor]:
    """The dense pre-activations, some tokens at a time, always in the same memory."""
    if buffer is None:
        # A launch costs more than memory on an accelerator: there the batch is one chunk.
        rows = min(x.shape[0], _CHUNK_TOKENS) if x.device.type == "cpu" else x.shape[0]
        buffer = x.new_empty(max(rows, 1), W_enc.shape[1])
    # An empty batch is one empty chunk.
    for chunk in x.split(buffer.shape[0]):
        centred = chunk if centre is None else chunk - centre
        yield torch.addmm(b_enc, centred, W_enc, out=buffer[: chunk.shape[0]])
