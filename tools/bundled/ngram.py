"""The baseline of the bundled subject: an interpolated modified Kneser-Ney 5-gram.

    python -m tools.bundled.ngram

It counts the tokens of the very documents that the transformer is fitted on and is scored on the
very tokens that the transformer is scored on, so the two losses can be set side by side.

Reference: Chen and Goodman 1999, "An empirical study of smoothing techniques for language
modeling", section 3 (modified Kneser-Ney, equations 26 to 30).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from modelassay.activations.corpus import TokenizedCorpus, Tokenizer, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from tools.bundled.train import CONTEXT, HERE

ORDER = 5
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Used where too few n-grams were seen once to four times to estimate the discounts (KenLM's)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """Counts of the n-grams of one order, ready for look-up by binary search."""

    keys: NDArray[np.int64]
    """Sorted packed n-grams."""
    counts: NDArray[np.int64]
    histories: NDArray[np.int64]
    """Sorted packed histories: the n-grams without their last token."""
    totals: NDArray[np.int64]
    """Sum of the counts that follow each history."""
    left_over: NDArray[np.float64]
    """Probability that discounting frees after each history, for the next lower order."""
    discounts: NDArray[np.float64]
    """What is taken from a count of 0, 1, 2, and 3 or more."""


class KneserNey:
    """Interpolated modified Kneser-Ney over packed integer n-grams.

    `p(w | h) = (c(h w) - D(c(h w))) / c(h) + left_over(h) p(w | h')` where `h'` drops the oldest
    token; the last step backs off to the uniform distribution. The longest order in use counts
    occurrences; every lower one counts distinct tokens on the left. Where a token has fewer than
    `order - 1` tokens before it, the longest order that fits takes that role.

    Args:
        documents: token ids of the training documents; no n-gram spans two of them.
        order: length of the longest n-gram.
        vocabulary: number of token ids; `order` of them must fit in 63 bits.
    """

    def __init__(
        self, documents: Sequence[NDArray[np.integer]], *, order: int, vocabulary: int
    ) -> None:
        self.order = order
        self.vocabulary = vocabulary
        self._bits = max(1, (vocabulary - 1).bit_length())
        if order * self._bits > 63:
            raise ValueError(
                f"order * bits per token must be at most 63; got {order} * {self._bits}. "
                "Lower the order."
            )
        stream = np.concatenate([np.asarray(d, dtype=np.int64) for d in documents])
        reach = np.concatenate([np.arange(len(d)) for d in documents])
        self._occurrences: list[Level] = []
        self._continuations: list[Level] = []
        for n, packed in enumerate(self._packed(stream), start=1):
            keys, counts = np.unique(packed[reach >= n - 1], return_counts=True)
            if n > 1:
                # Each distinct n-gram is one distinct left neighbour of its last n - 1 tokens.
                suffixes = keys & ((1 << self._bits * (n - 1)) - 1)
                distinct = np.unique(suffixes, return_counts=True)
                self._continuations.append(self._level(*distinct))
            self._occurrences.append(self._level(keys, counts))

    def probabilities(
        self, stream: NDArray[np.integer], reach: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Probability of each token of a stream given at most `order - 1` tokens before it.

        Args:
            stream: token ids.
            reach: how many tokens before each one may be used; at most its index in the stream.
        """
        packed = self._packed(np.asarray(stream, dtype=np.int64))
        reach = np.minimum(reach, self.order - 1)
        result = np.full(len(stream), 1 / self.vocabulary)
        for n in range(1, self.order + 1):
            for level, rows in (
                (self._occurrences[n - 1], reach == n - 1),
                (self._continuations[n - 1] if n < self.order else None, reach > n - 1),
            ):
                if level is not None:
                    result[rows] = self._interpolate(level, packed[n - 1][rows], result[rows])
        return result

    def _interpolate(
        self, level: Level, keys: NDArray[np.int64], lower: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if not len(level.keys):  # no document is that long
            return lower
        at = _find(level.histories, keys >> self._bits)
        seen = at >= 0
        where = _find(level.keys, keys)
        counts = np.where(where >= 0, level.counts[where], 0)
        kept = counts - level.discounts[np.minimum(counts, 3)]
        mixed = kept / level.totals[at] + level.left_over[at] * lower
        return np.where(seen, mixed, lower)

    def _packed(self, stream: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """For n = 1, 2, …: the n tokens that end at each position as one integer."""
        packed = [stream]
        for n in range(2, self.order + 1):
            older = np.zeros_like(stream)
            older[n - 1 :] = stream[: max(0, len(stream) - n + 1)]
            packed.append(packed[-1] | (older << self._bits * (n - 1)))
        return packed

    def _level(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> Level:
        discounts = np.array([0.0, *_discounts(counts)])
        histories, starts = np.unique(keys >> self._bits, return_index=True)
        totals = np.add.reduceat(counts, starts)
        freed = np.add.reduceat(discounts[np.minimum(counts, 3)], starts)
        return Level(
            keys=keys, counts=counts, histories=histories, totals=totals,
            left_over=freed / totals, discounts=discounts,
        )  # fmt: skip


def _discounts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """Discounts for counts 1, 2 and 3+ (Chen and Goodman 1999, equation 26)."""
    seen = [int((counts == k).sum()) for k in (1, 2, 3, 4)]
    if not all(seen):
        return FALLBACK_DISCOUNTS
    share = seen[0] / (seen[0] + 2 * seen[1])
    estimates = [k - (k + 1) * share * seen[k] / seen[k - 1] for k in (1, 2, 3)]
    if not all(0 < d < k for k, d in enumerate(estimates, start=1)):
        return FALLBACK_DISCOUNTS
    return estimates[0], estimates[1], estimates[2]


def _find(table: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each key in a sorted table, -1 where it is missing."""
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[at] == keys, at, -1)


def heldout_reach(heldout: TokenizedCorpus) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens before each measured one: within its context, and within its file."""
    lengths = heldout.measured.sum(1).numpy()
    within_context = np.concatenate([np.arange(n) for n in lengths])
    owners = heldout.document.numpy()
    first = np.concatenate([[True], owners[1:] != owners[:-1]])
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    file_start = np.maximum.accumulate(np.where(first, before, 0))
    return within_context, within_context + np.repeat(before - file_start, lengths)


def heldout_losses(tokenizer: Tokenizer, vocabulary: int) -> dict[str, float]:
    """Mean loss in nats per held-out token, with and without looking across contexts."""
    documents = [
        np.array(
            tokenizer(d.text, add_special_tokens=False, verbose=False)["input_ids"],  # type: ignore[index]
            dtype=np.int64,
        )
        for d in stdlib_corpus(with_tests=True).select("fit").documents
    ]
    model = KneserNey(documents, order=ORDER, vocabulary=vocabulary)
    heldout = tokenize(stdlib_corpus().select("heldout"), tokenizer, context_tokens=CONTEXT)
    stream = heldout.tokens[heldout.measured].numpy()
    within_context, within_file = heldout_reach(heldout)
    return {
        "fit_tokens": sum(len(d) for d in documents),
        "heldout_tokens": len(stream),
        "ngram_order": ORDER,
        "ngram_loss_within_context": _mean_loss(model.probabilities(stream, within_context)),
        "ngram_loss_within_file": _mean_loss(model.probabilities(stream, within_file)),
    }


def _mean_loss(probabilities: NDArray[np.float64]) -> float:
    return float(-np.log(probabilities).mean())


if __name__ == "__main__":
    loaded = AutoTokenizer.from_pretrained(HERE)
    print(json.dumps(heldout_losses(loaded, len(loaded)), indent=1))
