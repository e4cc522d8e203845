"""The n-gram baseline: a slow definition, normalisation, and what it may look at."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from tools.bundled.ngram import FALLBACK_DISCOUNTS, KneserNey, heldout_reach

VOCABULARY = 5
documents = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60), min_size=1, max_size=4
)


def discounts_of(counts):
    seen = Counter(counts)
    n = [seen[k] for k in (1, 2, 3, 4)]
    if 0 in n:
        return FALLBACK_DISCOUNTS
    y = n[0] / (n[0] + 2 * n[1])
    found = (1 - 2 * y * n[1] / n[0], 2 - 3 * y * n[2] / n[1], 3 - 4 * y * n[3] / n[2])
    return found if all(0 < d < k for k, d in enumerate(found, 1)) else FALLBACK_DISCOUNTS


def slow_probability(texts, history, word):
    """Chen and Goodman's recursion over tuples, the longest order counting occurrences."""

    def grams(n):
        return Counter(tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1))

    def level(n, top):
        if top:
            return grams(n)
        left = defaultdict(set)
        for gram in grams(n + 1):
            left[gram[1:]].add(gram[0])
        return Counter({gram: len(tokens) for gram, tokens in left.items()})

    def probability(context, top):
        counts = level(len(context) + 1, top)
        lower = probability(context[1:], False) if context else 1 / VOCABULARY
        after = {g: c for g, c in counts.items() if g[:-1] == context}
        if not after:
            return lower
        d = discounts_of(counts.values())
        total = sum(after.values())
        freed = sum(d[min(c, 3) - 1] for c in after.values()) / total
        own = after.get((*context, word), 0)
        return (own - (d[min(own, 3) - 1] if own else 0)) / total + freed * lower

    return probability(tuple(history), True)


@settings(deadline=None, max_examples=40)
@given(documents, st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6))
def test_matches_the_definition(texts, stream):
    model = KneserNey([np.array(t) for t in texts], order=3, vocabulary=VOCABULARY)
    reach = np.arange(len(stream))
    fast = model.probabilities(np.array(stream), reach)
    slow = [
        slow_probability(texts, stream[max(0, i - 2) : i], stream[i]) for i in range(len(stream))
    ]
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(documents, st.lists(st.integers(0, VOCABULARY - 1), min_size=0, max_size=4))
def test_sums_to_one_over_the_vocabulary(texts, history):
    model = KneserNey([np.array(t) for t in texts], order=5, vocabulary=VOCABULARY)
    last = [
        model.probabilities(np.array([*history, w]), np.arange(len(history) + 1))[-1]
        for w in range(VOCABULARY)
    ]
    assert sum(last) == pytest.approx(1, abs=1e-12)
    assert min(last) > 0


def test_only_tokens_within_reach_matter():
    # After 4 0 1 2 comes always 4, after 3 0 1 2 always 3.
    model = KneserNey([np.array([4, 0, 1, 2, 4, 3, 0, 1, 2, 3] * 5)], order=5, vocabulary=5)
    one, other = np.array([4, 0, 1, 2, 4]), np.array([3, 0, 1, 2, 4])
    near, far = np.array([0, 0, 0, 0, 3]), np.array([0, 0, 0, 0, 4])
    assert model.probabilities(one, near)[4] == model.probabilities(other, near)[4]
    assert model.probabilities(one, far)[4] > 0.8 > 0.2 > model.probabilities(other, far)[4]


def test_learns_a_cycle():
    model = KneserNey([np.arange(1000) % 5], order=5, vocabulary=VOCABULARY)
    stream = np.arange(20) % 5
    assert model.probabilities(stream, np.arange(20))[4:].min() > 0.95


def test_too_high_an_order_is_refused():
    with pytest.raises(ValueError, match=r"at most 63; got 6 \* 11"):
        KneserNey([np.array([1, 2])], order=6, vocabulary=2048)


def test_reach_stops_at_contexts_or_at_files():
    texts = ("a" * 5, "b" * 2)
    corpus = Corpus(
        source="test",
        documents=tuple(Document(name=t, text=t, split="heldout") for t in texts),
    )
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 3 + [False]])
    measured = mask.clone()
    measured[:, 0] = False
    contexts = TokenizedCorpus(
        corpus=corpus, tokens=torch.ones(3, 4, dtype=torch.int64), mask=mask, measured=measured,
        document=torch.tensor([0, 0, 1]), spans=torch.zeros(3, 4, 2, dtype=torch.int64),
    )  # fmt: skip
    within_context, within_file = heldout_reach(contexts)
    assert within_context.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert within_file.tolist() == [0, 1, 2, 3, 4, 0, 1]
