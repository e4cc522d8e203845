"""Examples of latents: by hand, against slow definitions, and what they must never do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.observe.exemplars import activation_histogram, find_examples


def contexts_of(*sizes):
    """One context a document, of the given numbers of measured tokens behind a BOS."""
    documents = tuple(Document(name=f"d{i}", text="x", split="heldout") for i in range(len(sizes)))
    mask = torch.arange(max(sizes) + 1) <= torch.tensor(sizes)[:, None]
    measured = mask.clone()
    measured[:, 0] = False
    return TokenizedCorpus(
        corpus=Corpus(source="test", documents=documents),
        tokens=torch.arange(mask.numel()).view(mask.shape) * mask,
        mask=mask, measured=measured, document=torch.arange(len(sizes)),
        spans=torch.zeros(*mask.shape, 2, dtype=torch.int64),
    )  # fmt: skip


def of_latent(examples, latent):
    """(group, document, first position, length, peak offset, {offset: value}) of each example."""
    found = []
    for e in (examples.latents == latent).nonzero()[:, 0].tolist():
        span = slice(int(examples.value_starts[e]), int(examples.value_starts[e + 1]))
        values = dict(
            zip(examples.offsets[span].tolist(), examples.values[span].tolist(), strict=True)
        )
        found.append(
            (
                int(examples.groups[e]), examples.documents[int(examples.contexts[e])],
                int(examples.starts[e]), int(examples.lengths[e]), int(examples.peaks[e]), values,
            )
        )  # fmt: skip
    return found


def test_by_hand():
    contexts = contexts_of(10, 4)  # rows 0 … 9 and 10 … 13
    dense = torch.zeros(14, 2)
    dense[[0, 1, 8, 13], 0] = torch.tensor([3.0, 5.0, 4.0, 2.0])
    examples = find_examples(
        Codes.from_dense(dense), contexts, generator(0), n_top=2, n_groups=1, per_group=5, reach=2
    )
    # Top: rows 1 and 8. Row 0 stands too near row 1, so only row 13 is left for the group.
    assert of_latent(examples, 0) == [
        (0, "d0", 1, 4, 1, {0: 3.0, 1: 5.0}),
        (0, "d0", 7, 4, 2, {2: 4.0}),
        (1, "d1", 2, 3, 2, {2: 2.0}),
    ]
    assert of_latent(examples, 1) == []
    assert examples.tokens.tolist() == contexts.tokens.tolist()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.floats(0.02, 1),
    st.integers(0, 6),
)
def test_examples_are_what_they_say(seed, sizes, rate, reach):
    contexts = contexts_of(*sizes)
    g = generator(seed)
    dense = torch.randn(contexts.n_tokens, 3, generator=g)
    dense *= torch.rand(dense.shape, generator=g) < rate
    codes = Codes.from_dense(dense)
    shape = {"n_top": 3, "n_groups": 4, "per_group": 2, "reach": reach}
    examples = find_examples(codes, contexts, generator(1), **shape)
    place = contexts.measured.nonzero()
    row_of = {tuple(p): i for i, p in enumerate(place.tolist())}
    for latent in range(3):
        found = of_latent(examples, latent)
        values = dense[:, latent]
        active = values.nonzero()[:, 0]
        ranked = active[values[active].argsort(descending=True, stable=True)]
        group_of = {
            int(row): group
            for group, rows in enumerate(np.array_split(ranked.numpy(), 4), start=1)
            for row in rows
        }
        taken = []
        for group, document, start, length, peak, shown in found:
            context = int(document[1:])
            row = row_of[context, start + peak]
            # The window is the peak's surroundings as far as the context's measured tokens go.
            window = [
                row_of[context, p]
                for p in range(start + peak - reach, start + peak + reach + 1)
                if (context, p) in row_of
            ]
            assert [row_of[context, start + i] for i in range(length)] == window
            assert shown == {i: float(values[r]) for i, r in enumerate(window) if values[r] != 0}
            assert values[row] != 0
            assert all(c != context or abs(r - row) > reach for r, c in taken)
            assert group in (0, group_of[row])
            taken.append((row, context))
        # The top ones are the greedy choice by value.
        greedy = []
        for row in ranked.tolist():
            context = int(place[row, 0])
            near = any(c == context and abs(r - row) <= reach for r, c in greedy)
            if not near and len(greedy) < 3:
                greedy.append((row, context))
        assert taken[: len(greedy)] == greedy
        for group in range(1, 5):
            assert sum(f[0] == group for f in found) <= 2
        assert [f[0] for f in found] == sorted(f[0] for f in found)


def test_groups_are_sampled_at_random_and_reproducibly():
    contexts = contexts_of(*[50] * 20)
    codes = Codes.from_dense(torch.rand(1000, 2, generator=generator(0)))
    one = find_examples(codes, contexts, generator(1), reach=3)
    same = find_examples(codes, contexts, generator(1), reach=3)
    other = find_examples(codes, contexts, generator(2), reach=3)
    assert of_latent(one, 0) == of_latent(same, 0)
    assert of_latent(one, 0)[:10] == of_latent(other, 0)[:10]
    assert of_latent(one, 0)[10:] != of_latent(other, 0)[10:]
    assert [e[0] for e in of_latent(one, 1)] == [0] * 10 + [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_only_contexts_that_are_shown_are_kept():
    contexts = contexts_of(5, 6, 7)
    dense = torch.zeros(18, 1)
    dense[12] = 1.0  # in the third context
    examples = find_examples(Codes.from_dense(dense), contexts, generator(0))
    assert examples.documents == ("d2",)
    assert torch.equal(examples.tokens, contexts.tokens[2:])


def test_codes_of_other_contexts_are_refused():
    codes = Codes.from_dense(torch.ones(4, 1))
    with pytest.raises(ShapeError, match="got 4 rows for 5 tokens"):
        find_examples(codes, contexts_of(5), generator(0))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 30), st.booleans())
def test_histogram_is_numpys(seed, n_bins, signed):
    g = generator(seed)
    dense = torch.randn(50, 4, generator=g)
    dense = dense if signed else dense.relu()
    dense[:, 3] = 0
    histogram = activation_histogram(Codes.from_dense(dense), n_bins)
    for latent in range(3):
        active = dense[:, latent][dense[:, latent] != 0].double().numpy()
        bounds = (min(0.0, active.min()), max(0.0, active.max()))
        counts, edges = np.histogram(active, n_bins, bounds)
        # A value on an edge may fall on either side of it by rounding.
        assert np.abs(counts - histogram.counts[latent].numpy()).sum() <= 2
        assert histogram.counts[latent].sum() == len(active)
        np.testing.assert_allclose(histogram.edges[latent], edges, rtol=1e-5, atol=1e-6)
    assert histogram.counts[3].sum() == 0
    assert (histogram.edges[3] == 0).all()
