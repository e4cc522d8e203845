"""TopK and BatchTopK codes of a batch whose tokens and latents are divided between processes."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.bags import join_bags, offsets_of, rows_of
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.kernels import pre_activation_chunks, with_encoder_gradient
from modelassay.decompositions.selection import above, abs_topk, guess_bound, topk
from modelassay.fitting.distributed.collectives import least_, sum_
from modelassay.fitting.distributed.mesh import ProcessMesh, divided
from modelassay.fitting.distributed.selection import kept_of_all, kept_per_token

_Bags = tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]


def encode_topk(
    batch: EncoderBatch,
    k: int,
    mesh: ProcessMesh,
    width: int,
    *,
    signed: bool = False,
) -> BatchCodes:
    """This process's part of the k largest entries of every token.

    Args:
        batch: this process's tokens, and its part of the encoder.
        k: entries of a token in all.
        mesh: the processes.
        width: latents in all.
        signed: whether the largest in magnitude are meant; else only positive ones are kept.
    """
    # The last process may have fewer latents than the others, but must bring as many candidates.
    slots = min(k, len(divided(width, mesh.latent_shards)[0]))
    with torch.no_grad():
        values, indices = _candidates(batch, slots, abs_topk if signed else topk)
        sizes = values.abs() if signed else values
        kept = kept_per_token(sizes, indices, k, mesh.latents)
        tokens, _ = kept.nonzero().unbind(1)
        bags = values[kept], indices[kept], offsets_of(tokens, len(values))
    return _with_gradient(batch, bags)


def _candidates(
    batch: EncoderBatch, slots: int, select: Callable[[Tensor, int], tuple[Tensor, Tensor]]
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    chunks = pre_activation_chunks(batch.x, batch.W_enc, batch.b_enc, batch.centre, batch.buffer)
    found = [select(chunk, slots) for chunk in chunks]
    values = torch.cat([chunk_values for chunk_values, _ in found])
    indices = torch.cat([chunk_indices for _, chunk_indices in found])
    missing = (0, slots - values.shape[1])
    return F.pad(values, missing), F.pad(indices, missing)


def encode_batch_topk(batch: EncoderBatch, k: int, mesh: ProcessMesh, width: int) -> BatchCodes:
    """This process's part of the ``k * tokens`` largest positive entries of the whole batch.

    Args:
        batch: this process's tokens, and its part of the encoder.
        k: mean number of entries of a token in all.
        mesh: the processes.
        width: latents in all.
    """
    count = k * len(batch.x) * mesh.token_shards
    with torch.no_grad():
        values, indices, offsets = _candidates_of_batch(batch, k, count, mesh, width)
        kept = kept_of_all(values, count, mesh.everyone)
        tokens = rows_of(offsets, values.numel())[kept]
        bags = values[kept], indices[kept], offsets_of(tokens, offsets.numel())
    return _with_gradient(batch, bags)


def _candidates_of_batch(
    batch: EncoderBatch, k: int, count: int, mesh: ProcessMesh, width: int
) -> _Bags:
    """Entries among which all that are to be kept are, probably few more: as bags."""
    bound: float | None = None
    bags: list[_Bags] = []
    for chunk in _chunks(batch):
        if bound is None:
            # Each process guesses as if its latents had their share of what is kept. Above the
            # least of all guesses each finds that many, so together they find enough.
            guess = guess_bound(chunk, math.ceil(k * chunk.shape[1] / width))
            bound = float(least_(chunk.new_tensor([guess]), mesh.everyone))
        bags.append(above(chunk, bound))
    found = torch.tensor([sum(len(values) for values, _, _ in bags)], device=batch.x.device)
    if int(sum_(found, mesh.everyone)) < count and bound:
        # The first chunks' tokens were not typical of the batch.
        bags = [above(chunk, 0.0) for chunk in _chunks(batch)]
    return join_bags(bags)


def _chunks(batch: EncoderBatch) -> Iterator[Tensor]:
    return pre_activation_chunks(batch.x, batch.W_enc, batch.b_enc, batch.centre, batch.buffer)


def _with_gradient(batch: EncoderBatch, bags: _Bags) -> BatchCodes:
    values, indices, offsets = bags
    values = with_encoder_gradient(
        values, indices, batch.x, batch.W_enc, batch.b_enc, batch.centre, offsets
    )
    return BatchCodes(values=values, indices=indices, offsets=offsets)
