"""The inference threshold of a BatchTopK dictionary, from held-out tokens.

BatchTopK chooses by comparing tokens of a batch, which inference must not do. One threshold on
the pre-activations replaces the comparison. Peers track the smallest selected value of each
training batch; that drifts low with the batch size and starts biased. Here it is the value above
which k latents per held-out token are active on average, found exactly.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import TooFewTokensError, ValueRangeError

_CHUNK_TOKENS = 2048


def calibrate_threshold(
    pre_activations: Callable[[Tensor], Tensor],
    activations: Float[Tensor, "token d_in"],
    k: int,
) -> float:
    """The threshold above which `k` pre-activations per token lie on average.

    With n tokens it lies just below the (k n)-th largest of all positive pre-activations. The
    bits of positive floats sort like integers, so a histogram over their upper halves finds
    the bin of that rank exactly, and only the values of that bin are kept and sorted: two
    passes, and memory that does not grow with tokens x latents.

    Args:
        pre_activations: tokens x d_in -> tokens x latents, before any sparsifier.
        activations: held-out tokens.
        k: wanted mean number of active latents per token.

    Returns:
        The threshold; 0 if fewer than k n pre-activations are positive.

    Raises:
        TooFewTokensError: if there are no tokens.
        ValueRangeError: if k is not positive.

    Reference:
        Bussmann, Leask & Nanda 2024, "BatchTopK Sparse Autoencoders", section 3 (a mean over
        training batches there; the calibration on held-out tokens is ours).
    """
    if len(activations) == 0:
        raise TooFewTokensError(
            "Calibrating a threshold must have held-out tokens; got 0. "
            "Harvest more documents, so that some fall on the held-out side."
        )
    if k <= 0:
        raise ValueRangeError(f"k must be above 0; got {k}. Use the k of training.")

    def positive_values() -> Iterator[Tensor]:
        with torch.no_grad():
            for rows in activations.split(_CHUNK_TOKENS):
                pre = pre_activations(rows).float().flatten()
                yield pre[pre > 0]

    wanted = round(k * len(activations))
    counts = torch.zeros(2**15, dtype=torch.int64)
    for values in positive_values():
        counts += torch.bincount(_bin(values), minlength=2**15).cpu()
    at_or_above = counts.flip(0).cumsum(0).flip(0)
    if int(at_or_above[0]) < wanted:
        return 0.0
    # The highest bin with which the values from the top suffice.
    bin_of_rank = int((at_or_above >= wanted).nonzero().max())
    rank_in_bin = wanted - int(at_or_above[bin_of_rank] - counts[bin_of_rank])
    inside = torch.cat([values[_bin(values) == bin_of_rank] for values in positive_values()])
    last_active = inside.sort(descending=True).values[rank_in_bin - 1]
    return float(torch.nextafter(last_active, torch.zeros_like(last_active)))


def _bin(values: Float[Tensor, " value"]) -> Tensor:
    return values.view(torch.int32) >> 16
