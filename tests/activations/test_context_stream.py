"""Whole contexts in random order: every one once, its tokens as they came, resumable."""

from collections import Counter

import pytest
import torch

from modelassay.activations.context_stream import ContextStream
from modelassay.activations.corpus import Corpus
from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.streaming import stream_harvest
from modelassay.core.errors import (
    ProvenanceError,
    TooFewTokensError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.subjects.subject import Subject

SITES = ("resid_post.0", "resid_post.1")


@pytest.fixture(scope="module")
def harvested(subject: Subject, corpus: Corpus) -> Harvest:
    return harvest(subject, corpus, SITES, context_tokens=32, progress=SILENT)


def stream(source, batch_contexts=3, seed=0, site=SITES[1], epochs: int | None = None):
    draw = generator(seed)
    return ContextStream(source, site, batch_contexts=batch_contexts, generator=draw, epochs=epochs)


def whole_contexts(source: Harvest, site: str = SITES[1]) -> Counter[bytes]:
    """The bytes of every context's activations."""
    counts = source.contexts.measured.sum(1).tolist()
    return Counter(x.numpy().tobytes() for x in source.activations(site).split(counts) if len(x))


def test_an_epoch_deals_out_every_context_once_in_its_own_order(harvested: Harvest):
    expected = whole_contexts(harvested)
    found: Counter[bytes] = Counter()
    for batch in stream(harvested, batch_contexts=1, epochs=1):
        found[batch.activations[batch.mask].numpy().tobytes()] += 1
    assert found == expected
    batches = list(stream(harvested, epochs=1))
    found = Counter(
        row[there].numpy().tobytes()
        for batch in batches
        for row, there in zip(batch.activations, batch.mask, strict=True)
    )
    assert found <= expected
    assert len(batches) == expected.total() // 3


def test_padding_stands_at_the_end_and_is_zero(harvested: Harvest):
    batches = list(stream(harvested, epochs=1))
    assert any((~batch.mask).any() for batch in batches)
    for batch in batches:
        assert not (batch.mask[:, 1:] & ~batch.mask[:, :-1]).any()
        assert batch.mask.any(0).all()
        assert not batch.activations[~batch.mask].any()


def test_selected_documents_are_all_there_is(harvested: Harvest):
    side = harvested.select("heldout")
    found = Counter(
        batch.activations[batch.mask].numpy().tobytes()
        for batch in stream(side, batch_contexts=1, epochs=1)
    )
    assert found == whole_contexts(side)


def test_a_model_that_runs_meanwhile_gives_the_same_contexts(
    subject: Subject, corpus: Corpus, harvested: Harvest
):
    streamed = stream_harvest(subject, corpus, SITES, context_tokens=32)
    for kept, made in zip(stream(harvested, epochs=1), stream(streamed, epochs=1), strict=True):
        assert torch.equal(kept.mask, made.mask)
        torch.testing.assert_close(kept.activations, made.activations, atol=1e-5, rtol=1e-4)


def test_orders_differ_between_epochs_and_seeds(harvested: Harvest):
    per_epoch = stream(harvested).batches_per_epoch
    one, other = stream(harvested), stream(harvested, seed=1)
    first, second = ([next(one) for _ in range(per_epoch)] for _ in range(2))
    third = [next(other) for _ in range(per_epoch)]
    for batches in (second, third):
        assert not all(
            a.activations.shape == b.activations.shape and torch.equal(a.activations, b.activations)
            for a, b in zip(first, batches, strict=True)
        )


@pytest.mark.parametrize("done", [0, 2, 9])
def test_a_stream_goes_on_where_another_stood(done: int, harvested: Harvest):
    before = stream(harvested, seed=4)
    for _ in range(done):
        next(before)
    after = stream(harvested, seed=5)
    after.load_state_dict(before.state_dict())
    for _ in range(5):
        assert torch.equal(next(before).activations, next(after).activations)
    with pytest.raises(ProvenanceError, match="batch_contexts must be 3; got 2"):
        stream(harvested, batch_contexts=2).load_state_dict(before.state_dict())


def test_mean_tokens_are_those_of_a_context(harvested: Harvest):
    lengths = harvested.contexts.measured.sum(1)
    expected = float(lengths[lengths > 0].double().mean())
    assert stream(harvested).mean_tokens == pytest.approx(expected)


def test_what_cannot_be_dealt_is_refused(harvested: Harvest):
    with pytest.raises(TooFewTokensError, match="one batch of 999"):
        stream(harvested, batch_contexts=999)
    with pytest.raises(ValueRangeError, match="batch_contexts must be at least 1"):
        stream(harvested, batch_contexts=0)
    with pytest.raises(UnknownNameError, match=r"resid_post\.7"):
        stream(harvested, site="resid_post.7")
