"""Exact selection of the largest entries among those that several processes hold.

Every process brings candidates that are sure to hold whatever it must keep. What decides is one
number, the bar: the value of the entry of the wanted rank among all. Entries above it are kept;
of those equal to it, as many as there is room for, in the order of the processes. So exactly as
many are kept in all as by one process, and the same ones where no values are equal.
"""

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.fitting.distributed.collectives import counts_before, gathered, sum_

_HALF = 2**16  # values of each half of a float's 32 bits


def kept_per_token(
    candidates: Float[Tensor, "token slot"],
    indices: Int[Tensor, "token slot"],
    k: int,
    group: dist.ProcessGroup,
    floor: float = 0.0,
) -> Bool[Tensor, "token slot"]:
    """Which of this process's candidates are among the k largest of their token.

    Args:
        candidates: this process's k largest of every token, or all of them; as many on every
            process, filled up with the floor.
        indices: their latents; of equal candidates the first latents are kept.
        k: how many are kept of a token in all.
        group: the processes that hold the other latents of the same tokens.
        floor: what is not above it is never kept.
    """
    candidates = candidates.clamp(min=floor)
    everyone = gathered(candidates, group)
    n_shards, n_tokens, n_slots = everyone.shape
    of_token = everyone.transpose(0, 1).reshape(n_tokens, n_shards * n_slots)
    k = min(k, n_shards * n_slots)
    largest = of_token.topk(k, dim=1, sorted=True).values
    bar = largest[:, -1:]
    # The entries above the bar are all among the largest.
    room = k - (largest > bar).sum(1, keepdim=True)
    above, tied = candidates > bar, (candidates == bar) & (bar > floor)
    # Every process can count the others' ties: their candidates are here.
    before = (everyone[: dist.get_rank(group)] == bar).sum((0, 2)).unsqueeze(1)
    allowed = (room - before).clamp(min=0)
    if not bool((tied.sum(1, keepdim=True) > allowed).any()):
        return above | tied
    order = indices.argsort(dim=1)
    ties_so_far = tied.gather(1, order).cumsum(1)
    within = torch.empty_like(tied).scatter_(1, order, ties_so_far <= allowed)
    return above | (tied & within)


def kept_of_all(
    candidates: Float[Tensor, " entry"], count: int, group: dist.ProcessGroup
) -> Bool[Tensor, " entry"]:
    """Which of this process's candidates are among the `count` largest of all processes.

    The bits of positive floats sort like integers. A histogram over their upper halves, summed
    over the processes, finds the half that the bar has; one over the lower halves of those
    entries finds the bar itself. So two sums of fixed size are exchanged, however many entries
    there are.

    Args:
        candidates: positive entries; of equal ones, the first are kept.
        count: how many are kept in all.
        group: the processes that hold the other entries.
    """
    bits = candidates.float().contiguous().view(torch.int32).long()
    upper, lower = bits.div(_HALF, rounding_mode="floor"), bits % _HALF
    upper_counts = _histogram(upper, group)
    if int(upper_counts.sum()) <= count:
        return torch.ones_like(candidates, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(candidates, dtype=torch.bool)
    upper_of_bar, rank = _bin_of_rank(upper_counts, count)
    lower_counts = _histogram(lower[upper == upper_of_bar], group)
    lower_of_bar, room = _bin_of_rank(lower_counts, rank)
    bar = upper_of_bar * _HALF + lower_of_bar
    tied = bits == bar
    allowed = room - counts_before(tied.sum(), group)
    return (bits > bar) | (tied & (tied.cumsum(0) <= allowed))


def _histogram(values: Int[Tensor, " entry"], group: dist.ProcessGroup) -> Tensor:
    return sum_(torch.bincount(values, minlength=_HALF), group)


def _bin_of_rank(counts: Int[Tensor, " bin"], rank: int) -> tuple[int, int]:
    """The bin of the entry of some rank, 1 for the largest, and its rank within the bin."""
    at_or_above = counts.flip(0).cumsum(0).flip(0)
    # The highest bin with which the entries from the top suffice.
    found = int((at_or_above >= rank).nonzero().max())
    return found, rank - int(at_or_above[found] - counts[found])
