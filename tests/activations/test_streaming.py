"""Streaming without a store: the rows of a harvest, mixed, and the same again after a resume."""

from collections.abc import Callable

import pytest
import torch

from modelassay.activations.corpus import Corpus, tokenize
from modelassay.activations.harvest import harvest
from modelassay.activations.streaming import StreamedHarvest, stream_harvest
from modelassay.core.errors import NonFiniteError, UnknownNameError, ValueRangeError
from modelassay.subjects.subject import Subject

SITES = ["resid_post.1", "head_out.0"]


@pytest.fixture
def streamed(subject: Subject, corpus: Corpus) -> StreamedHarvest:
    return stream_harvest(
        subject, corpus, SITES, context_tokens=24, batch_contexts=4, buffer_tokens=200
    )


@pytest.mark.parametrize("site", SITES)
def test_an_epoch_is_the_harvest_in_another_order(
    streamed: StreamedHarvest, subject: Subject, corpus: Corpus, site: str
) -> None:
    made = harvest(subject, corpus, SITES, context_tokens=24)
    assert streamed.n_tokens == made.n_tokens
    assert streamed.width(site) == made.width(site)
    assert streamed.subject_fingerprint == made.subject_fingerprint
    stream = streamed.stream(site, batch_tokens=1, generator=torch.Generator(), epochs=1)
    rows = torch.cat(list(stream))
    assert len(rows) == made.n_tokens
    assert not torch.allclose(rows, made.activations(site), atol=1e-3)
    torch.testing.assert_close(
        rows.sort(0).values, made.activations(site).sort(0).values, rtol=1e-4, atol=1e-5
    )


def test_moments_are_those_of_the_harvest(
    streamed: StreamedHarvest, subject: Subject, corpus: Corpus
) -> None:
    made = harvest(subject, corpus, SITES, context_tokens=24).select("fit").moments(SITES[0])
    moments = streamed.select("fit").moments(SITES[0])
    assert moments.count == made.count
    torch.testing.assert_close(moments.mean, made.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments.covariance, made.covariance, rtol=1e-4, atol=1e-5)


def test_batches_mix_documents(make_subject: Callable[[int], Subject], corpus: Corpus) -> None:
    # The embedding tells the document: each document is one repeated token of its own.
    subject = make_subject(0)
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=24)
    contexts.tokens[:, 1:] = contexts.document[:, None] + 1
    streamed = stream_harvest(subject, contexts, "resid_pre.0", buffer_tokens=600)
    letters = subject.module.model.embed_tokens.weight[1:13].detach()
    batches = streamed.stream(batch_tokens=60, generator=torch.Generator(), epochs=1)
    for batch in batches:
        documents = torch.cdist(batch, letters).argmin(1)
        assert len(documents.unique()) >= 6


def test_a_resumed_stream_goes_on_with_the_same_batches(streamed: StreamedHarvest) -> None:
    def fresh(seed: int):
        generator = torch.Generator().manual_seed(seed)
        return streamed.stream(SITES[0], batch_tokens=64, generator=generator)

    for done in (0, 1, 5, 40):
        first = fresh(0)
        for _ in range(done):
            next(first)
        second = fresh(1)
        second.load_state_dict(first.state_dict())
        for _ in range(12):
            assert torch.equal(next(first), next(second))


def test_select_and_site_follow_the_harvest(streamed: StreamedHarvest, corpus: Corpus) -> None:
    side = streamed.select("heldout")
    assert {corpus.documents[i].split for i in side.contexts.document.tolist()} == {"heldout"}
    assert side.n_tokens < streamed.n_tokens
    with pytest.raises(ValueRangeError, match="The site must be named"):
        streamed.width()
    with pytest.raises(UnknownNameError, match=r"got 'resid_post\.2'"):
        streamed.stream("resid_post.2", batch_tokens=1, generator=torch.Generator())


def test_not_a_number_is_refused(make_subject: Callable[[int], Subject], corpus: Corpus) -> None:
    subject = make_subject(0)
    streamed = stream_harvest(subject, corpus, "resid_post.0")
    with torch.no_grad():
        subject.module.model.embed_tokens.weight[:] = torch.nan
    with pytest.raises(NonFiniteError, match=r"at 'resid_post\.0' in context"):
        next(streamed.stream(batch_tokens=2, generator=torch.Generator()))
