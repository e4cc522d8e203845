"""Description length of labels given activations, by the online code.

A probe that needs few items to become sure transmits labels in few bits: unlike the accuracy, the
code's length also says how much effort the decoding takes.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import TooFewTokensError
from modelassay.core.randomness import derived
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.probe import ProbeMethod

PERCENTAGES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25.0, 50.0, 100.0)
"""Ends of the blocks, of all items (Voita & Titov 2020, their configuration)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineCode:
    """Length of the code of all labels."""

    bits: float
    uniform_bits: float
    """``n log2 K``: without a probe."""
    n_items: int
    block_ends: tuple[int, ...]
    """Items known after each block."""
    block_bits: tuple[float, ...]
    """Bits of each block; the first is sent uniformly."""

    @property
    def compression(self) -> float:
        """``uniform_bits / bits``: 1 is no better than uniform."""
        return self.uniform_bits / self.bits


def online_code(
    method: ProbeMethod,
    data: ProbeData,
    *,
    seed: int = 0,
    percentages: tuple[float, ...] = PERCENTAGES,
    step: Callable[[int], None] = lambda _done: None,
) -> OnlineCode:
    """``t_1 log2 K + sum_i -log2 p_i(labels of block i + 1)``, p_i fitted to blocks 1 … i.

    Groups are shuffled once and stay whole: a block ends with the first group that passes its
    percentage. Every block's probe is fitted anew, by its own early stopping or cross-validation.
    To each prediction one pseudo-item with a uniform label is added, ``(n p + 1 / K) / (n + 1)``
    after n items, so that a class that was not seen yet costs finitely many bits (ours).

    Args:
        step: told after each block how many items are coded.

    Raises:
        ValueRangeError: if there is one class only.
        TooFewTokensError: if the groups do not make two blocks.

    Reference: Voita & Titov 2020, section 3.2.
    """
    data.require_classes()
    order, ends = _blocks(data, percentages, seed)
    uniform = math.log2(data.n_classes)
    bits = [ends[0] * uniform]
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        known, coded = data.take(order[:start]), data.take(order[start:end])
        likely = _predicted(method, known, coded, derived(seed, "online code", number))
        smoothed = (start * likely + 1 / data.n_classes) / (start + 1)
        bits.append(-float(smoothed.gather(1, coded.labels[:, None]).log2().sum()))
        step(end)
    return OnlineCode(
        bits=sum(bits),
        uniform_bits=len(data) * uniform,
        n_items=len(data),
        block_ends=tuple(ends),
        block_bits=tuple(bits),
    )


def _blocks(
    data: ProbeData, percentages: tuple[float, ...], seed: int
) -> tuple[Int[Tensor, " item"], list[int]]:
    """Items in the order of their shuffled groups, and where the blocks end."""
    present, owner = data.groups.unique(return_inverse=True)
    rank = torch.randperm(len(present), generator=derived(seed, "order of the online code"))
    order = rank[owner].argsort(stable=True)
    group_ends = torch.bincount(rank[owner]).cumsum(0)
    wanted = torch.tensor([p / 100 * len(data) for p in percentages], dtype=torch.float64)
    passed = torch.searchsorted(group_ends.double(), wanted).clamp(max=len(group_ends) - 1)
    ends = group_ends[passed].unique().tolist()
    if len(ends) < 2:
        raise TooFewTokensError(
            f"An online code needs groups enough for two blocks; got {len(present)} groups of "
            f"{len(data)} items. Add groups, or make them smaller."
        )
    return order, ends


def _predicted(
    method: ProbeMethod, known: ProbeData, coded: ProbeData, generator: torch.Generator
) -> Float[Tensor, "item class"]:
    """Probabilities for the next block, of a probe that knows only the classes it has seen."""
    present, labels = known.labels.unique(return_inverse=True)
    likely = torch.zeros(len(coded), known.n_classes, dtype=torch.float64)
    if len(present) == 1:
        likely[:, present] = 1.0
        return likely
    narrowed = ProbeData(
        activations=known.activations,
        labels=labels,
        groups=known.groups,
        group_names=known.group_names,
        classes=tuple(known.classes[number] for number in present.tolist()),
    )
    likely[:, present] = method.fit(narrowed, generator).probabilities(coded.activations)
    return likely
