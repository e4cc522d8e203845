"""Exact selection of the largest entries of a matrix of pre-activations, in slots or in bags.

What is done for each device is in `kernels_torch` and `kernels_triton`; both are exact.
"""

from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.bags import offsets_of as offsets_of
from modelassay.decompositions.bags import pad_bags as pad_bags
from modelassay.decompositions.bags import rows_of as rows_of
from modelassay.decompositions.kernels_interface import kernels_for

_SAMPLE = 2**16  # entries that the first guess of a batch threshold is taken from: ours


def topk(
    pre: Float[Tensor, "token width"], k: int
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """The k largest entries of every row, in no particular order; ties are broken arbitrarily.

    Args:
        pre: any values.
        k: entries per row; more than the width means all.

    Returns:
        Values and column indices.
    """
    return kernels_for(pre.device).topk(pre, k)


def abs_topk(
    pre: Float[Tensor, "token width"], k: int
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """The k entries of every row that are largest in magnitude, with their signs; see `topk`."""
    _, indices = topk(pre.abs(), k)
    return pre.gather(1, indices), indices


def group_max(
    pre: Float[Tensor, "token width"], k: int
) -> tuple[Float[Tensor, "token {k}"], Int[Tensor, "token {k}"]]:
    """The largest entry of each of k groups of consecutive columns; k divides the width."""
    return kernels_for(pre.device).group_max(pre, k)


def above(
    pre: Float[Tensor, "token width"], bound: float | Float[Tensor, ""] | Float[Tensor, " width"]
) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
    """All entries greater than a bound, as bags.

    Args:
        pre: any values.
        bound: one number, or one per column.

    Returns:
        Values, column indices, and the offset of every row's first entry.
    """
    return kernels_for(pre.device).above(pre, bound)


def batch_topk(
    pre: Float[Tensor, "token width"], k: int
) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
    """The ``k * tokens`` largest positive entries of the whole matrix, as bags.

    A threshold is guessed from a sample, the entries above it are collected, and the exact number
    is kept of those; a guess that was too high is replaced by zero. Ties are broken arbitrarily.

    Args:
        pre: any values; those that are not positive are never selected.
        k: mean number of entries per row.

    Returns:
        Values, column indices, and the offset of every row's first entry.
    """
    found = above(pre, guess_bound(pre, k))
    if found[0].numel() < k * pre.shape[0]:
        found = above(pre, 0.0)
    return keep_largest(*found, count=k * pre.shape[0])


def guess_bound(pre: Float[Tensor, "token width"], k: int) -> float:
    """A number that a little more than k entries per row exceed, probably; at least 0.

    The order statistic of a sample, moved down by four standard errors of its rank.
    """
    # An odd stride walks over all columns even when it exceeds the width.
    stride = pre.numel() // _SAMPLE | 1
    sample = pre.flatten()[::stride]
    expected = sample.numel() * k / max(pre.shape[1], 1)
    rank = int(expected + 4 * expected**0.5) + 4
    if rank >= sample.numel():
        return 0.0
    return max(float(sample.topk(rank).values[-1]), 0.0)


def keep_largest(
    values: Float[Tensor, " entry"],
    indices: Int[Tensor, " entry"],
    offsets: Int[Tensor, " token"],
    *,
    count: int,
) -> tuple[Float[Tensor, " kept"], Int[Tensor, " kept"], Int[Tensor, " token"]]:
    """The `count` largest entries of some bags, still as bags of the same tokens."""
    return kernels_for(values.device).keep_largest(values, indices, offsets, count=count)
