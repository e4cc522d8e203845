"""Interventions in rounds, which share each context's prefix and clean pass."""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

_BATCH_CONTEXTS = 32
_CROP_TOKENS = 16  # contexts are cut to a multiple of so many tokens (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Samples that run at once, at most one a context."""

    samples: Int[Tensor, " sample"]
    places: Int[Tensor, " sample"]
    """Place of each sample's context in its group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Contexts cut to one length, and the rounds of samples in them."""

    contexts: Int[Tensor, " context"]
    n_tokens: int
    """The contexts are cut to this length."""
    rounds: tuple[Round, ...]


def grouped(
    context: Int[Tensor, " sample"], needed: Int[Tensor, " sample"], context_tokens: int
) -> Iterator[Group]:
    """Arrange samples so that contexts are shared and little is computed in vain.

    A sample needs only the tokens up to its horizon. Samples that need about the same length are
    put together; among these, contexts with about the same number of samples share a batch, so that
    few places of a batch are left idle in its last rounds.

    Args:
        context: context of each sample.
        needed: tokens of it that the sample needs.
        context_tokens: length of a whole context.
    """
    lengths = ((needed + _CROP_TOKENS - 1) // _CROP_TOKENS * _CROP_TOKENS).clamp(max=context_tokens)
    for length in lengths.unique().tolist():
        samples = (lengths == length).nonzero()[:, 0]
        samples = samples[context[samples].argsort(stable=True)]
        contexts, counts = context[samples].unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        by_count = counts.argsort(descending=True, stable=True)
        for batch in by_count.split(_BATCH_CONTEXTS):
            rounds: list[Round] = []
            for turn in range(int(counts[batch].max())):
                places = (counts[batch] > turn).nonzero()[:, 0]
                rounds.append(Round(samples=samples[starts[batch[places]] + turn], places=places))
            yield Group(contexts=contexts[batch], n_tokens=length, rounds=tuple(rounds))
