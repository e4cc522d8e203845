"""Reconstructions by nested dictionaries: the first latents, more of them, all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.bags import offsets_of, rows_of
from modelassay.decompositions.kernels import sparse_decode


def nested_decode(
    values: Float[Tensor, "*selected"],
    indices: Int[Tensor, "*selected"],
    weight: Float[Tensor, "width d_out"],
    prefixes: Sequence[int],
    offsets: Int[Tensor, " token"] | None = None,
) -> Float[Tensor, "prefix token d_out"]:
    """For every prefix m, ``codes[:, :m] @ weight[:m]``, at about the cost of one decoding.

    Each entry is decoded once, into the block between two prefixes that its latent lies in; the
    blocks are then added up.

    Args:
        values: the codes' values.
        indices: the latents that they belong to.
        weight: one row per latent.
        prefixes: numbers of latents, ascending, the last one the width.
        offsets: start of every token's run, for bags; None for slots.
    """
    latents = indices.flatten()
    if offsets is None:
        n_tokens = indices.shape[0]
        tokens = torch.arange(n_tokens, device=indices.device).repeat_interleave(
            indices.shape[1], output_size=indices.numel()
        )
    else:
        n_tokens = offsets.numel()
        tokens = rows_of(offsets, indices.numel())
    bounds = torch.tensor(prefixes[:-1], device=indices.device)
    places, order = (torch.bucketize(latents, bounds, right=True) * n_tokens + tokens).sort()
    starts = offsets_of(places, len(prefixes) * n_tokens)
    blocks = sparse_decode(values.flatten()[order], latents[order], weight, starts)
    return blocks.view(len(prefixes), n_tokens, weight.shape[1]).cumsum(0)
