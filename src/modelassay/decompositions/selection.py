"""Exact selection of the largest entries of a matrix of pre-activations.

Two layouts are used for what was selected. *Slots*: ``[token, slot]`` matrices, the same number
for every token. *Bags*: flat ``[entry]`` vectors in the order of tokens with the start of every
token's run in ``offsets``, for selections whose number varies from token to token.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GROUP = 16  # best of 8, 16 and 32 on CPU: reference/performance.md
_CROWDED = 4  # above a quarter of the groups, looking at all entries is faster: ours, measured
_SAMPLE = 2**16  # entries that the first guess of a batch threshold is taken from: ours


def topk(
    pre: Float[Tensor, "token width"], k: int
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """The k largest entries of every row, in no particular order; ties are broken arbitrarily.

    Two stages: the maxima of groups of 16 columns, then a search inside the k winning groups. It
    is exact because a group that lost has k groups above it, each holding an entry at least as
    large as any of its own. Widths that do not divide go to `torch.topk`.

    Args:
        pre: any values.
        k: entries per row; more than the width means all.

    Returns:
        Values and column indices.
    """
    n_tokens, width = pre.shape
    k = min(k, width)
    n_groups = width // _GROUP
    if width % _GROUP or 2 * (n_groups + k * _GROUP) > width:
        values, indices = pre.topk(k, dim=1, sorted=False)
        return values, indices
    # A group is every n_groups-th column: its maximum is then taken over contiguous rows.
    maxima = pre.view(n_tokens, _GROUP, n_groups).amax(1)
    winners = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, width, n_groups, device=pre.device)
    candidates = (winners.unsqueeze(2) + members).flatten(1)
    values, chosen = pre.gather(1, candidates).topk(k, dim=1, sorted=False)
    return values, candidates.gather(1, chosen)


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
    n_tokens, width = pre.shape
    values, members = pre.view(n_tokens, k, width // k).max(2)
    return values, members + torch.arange(0, width, width // k, device=pre.device)


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
    n_tokens, width = pre.shape
    n_groups = width // _GROUP
    passing = None
    if width % _GROUP == 0 and not (isinstance(bound, Tensor) and bound.ndim):
        passing = pre.view(n_tokens, _GROUP, n_groups).amax(1) > bound
    if passing is None or int(passing.sum()) * _CROWDED > passing.numel():
        rows, columns = (pre > bound).nonzero().unbind(1)
    else:
        # Only groups whose maximum passes are looked into: a 16th of the passes over memory.
        rows, groups = passing.nonzero().unbind(1)
        members = torch.arange(0, width, n_groups, device=pre.device)
        candidates = groups.unsqueeze(1) + members
        hit, member = (pre[rows.unsqueeze(1), candidates] > bound).nonzero().unbind(1)
        rows, columns = rows[hit], groups[hit] + member * n_groups
    return pre[rows, columns], columns, offsets_of(rows, n_tokens)


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
    if values.numel() <= count:
        return values, indices, offsets
    kept = values.topk(count, sorted=False).indices.sort().values
    rows = rows_of(offsets, values.numel())[kept]
    return values[kept], indices[kept], offsets_of(rows, offsets.numel())


def rows_of(offsets: Int[Tensor, " token"], n_entries: int) -> Int[Tensor, " entry"]:
    """The row that every entry of some bags belongs to."""
    ends = torch.cat([offsets[1:], offsets.new_tensor([n_entries])])[: offsets.numel()]
    rows = torch.arange(offsets.numel(), device=offsets.device)
    return rows.repeat_interleave(ends - offsets)


def offsets_of(rows: Int[Tensor, " entry"], n_rows: int) -> Int[Tensor, " token"]:
    """The position of every row's first entry, for rows in ascending order."""
    counts = torch.bincount(rows, minlength=n_rows)
    return counts.cumsum(0) - counts


def pad_bags(
    values: Float[Tensor, " entry"],
    indices: Int[Tensor, " entry"],
    offsets: Int[Tensor, " token"],
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """Bags as slots: as many as the longest bag has, the empty ones with value 0 and index 0."""
    rows = rows_of(offsets, values.numel())
    slots = torch.arange(values.numel(), device=values.device) - offsets[rows]
    n_slots = int(slots.max()) + 1 if values.numel() else 0
    padded_values = values.new_zeros(offsets.numel(), n_slots)
    padded_indices = indices.new_zeros(offsets.numel(), n_slots)
    padded_values[rows, slots] = values
    padded_indices[rows, slots] = indices
    return padded_values, padded_indices
