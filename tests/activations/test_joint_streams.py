"""Several sites in one stream: the same order for all, and one run of the model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modelassay.activations.corpus import Corpus
from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.rows import ActivationRows
from modelassay.activations.source import ActivationSource
from modelassay.activations.statistics import Moments
from modelassay.activations.streaming import StreamedHarvest, stream_harvest
from modelassay.core.errors import NonFiniteError, UnknownNameError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

SITES = tuple(map(Site.parse, ("resid_post.1", "head_out.0", "mlp_hidden.2")))


@pytest.fixture
def stored(subject: Subject, corpus: Corpus) -> Harvest:
    return harvest(subject, corpus, SITES, context_tokens=24).select("fit")


@pytest.fixture
def streamed(subject: Subject, corpus: Corpus) -> StreamedHarvest:
    return stream_harvest(
        subject, corpus, SITES, context_tokens=24, batch_contexts=4, buffer_tokens=200
    ).select("fit")


@pytest.fixture(params=["stored", "streamed"])
def source(request: pytest.FixtureRequest) -> ActivationSource:
    return request.getfixturevalue(request.param)


class CountedRuns:
    """Counts how often a subject runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        run = Subject.run

        def counted(*args: object, **options: object) -> object:
            self.number += 1
            return run(*args, **options)

        monkeypatch.setattr(Subject, "run", counted)


def test_columns_are_the_sites_own_streams(source: ActivationSource):
    joint = source.joint_stream(SITES, batch_tokens=50, generator=generator(3))
    alone = [source.stream(site, batch_tokens=50, generator=generator(3)) for site in SITES]
    for _ in range(2 * joint.batches_per_epoch + 1):
        assert torch.equal(next(joint), torch.cat([next(stream) for stream in alone], dim=1))


def test_one_run_of_the_model_serves_all_sites(
    streamed: StreamedHarvest, monkeypatch: pytest.MonkeyPatch
):
    counted = CountedRuns(monkeypatch)
    numbers: list[int] = []
    for sites in (SITES[:1], SITES):
        counted.number = 0
        list(streamed.joint_stream(sites, batch_tokens=50, generator=generator(3), epochs=2))
        numbers.append(counted.number)
    assert numbers[0] == numbers[1] > 2


def test_moments_of_all_sites_come_from_one_run(
    streamed: StreamedHarvest, stored: Harvest, monkeypatch: pytest.MonkeyPatch
):
    counted = CountedRuns(monkeypatch)
    found = streamed.joint_moments(SITES)
    runs = counted.number
    assert runs == len(torch.arange(len(streamed.contexts)).split(4))
    for site, moments in zip(SITES, found, strict=True):
        torch.testing.assert_close(moments.mean, stored.moments(site).mean, rtol=1e-4, atol=1e-5)
        assert streamed.moments(site) is moments
    assert counted.number == runs


def test_a_batch_can_be_looked_at_again_with_its_rows(source: ActivationSource, stored: Harvest):
    stream = source.joint_stream(SITES, batch_tokens=50, generator=generator(3))
    dealt = [next(stream) for _ in range(2 * stream.batches_per_epoch)]
    state = stream.state_dict()
    matrix = torch.cat([stored.activations(site) for site in SITES], dim=1)
    for number, batch in enumerate(dealt):
        again, rows = stream.again(number)
        assert torch.equal(again, batch)
        assert rows is not None
        torch.testing.assert_close(matrix[rows], batch, rtol=1e-4, atol=1e-5)
    assert stream.state_dict() == state


def test_a_row_is_named_by_its_document(source: ActivationSource, stored: Harvest):
    context, position = stored.rows[70].tolist()
    document = stored.contexts.corpus.documents[int(stored.contexts.document[context])]
    expected = f"token {position} of context {context} (document {document.name!r})"
    assert source.place_of(70) == expected


def spoilt(rows: Tensor) -> ActivationRows:
    """Twenty rows with NaN in the fourth and Inf in the tenth; every fifth is held out."""
    rows = rows.clone()
    rows[3, 1], rows[9, 0] = torch.nan, torch.inf
    return ActivationRows.of(rows, SITES[0], heldout=torch.arange(20) % 5 == 0).select("fit")


def test_rows_that_are_not_finite_are_found_and_left_out_of_moments():
    rows = torch.randn(20, 3, generator=generator(0))
    source = spoilt(rows)
    bad = source.non_finite(SITES[0])
    assert [source.place_of(row) for row in bad.tolist()] == ["row 3", "row 9"]
    (moments,) = source.joint_moments(SITES[:1], finite_only=True)
    kept = [row for row in range(20) if row % 5 and row not in (3, 9)]
    expected = Moments.of(rows[kept])
    assert moments.count == len(kept) == 14
    torch.testing.assert_close(moments.covariance, expected.covariance)
    assert not source.moments().mean.isfinite().all()


def test_a_model_that_gives_nan_is_refused_unless_that_is_allowed(
    make_subject: Callable[[int], Subject], corpus: Corpus
):
    subject = make_subject(0)
    with torch.no_grad():  # one letter alone
        subject.module.model.embed_tokens.weight[subject.tokenizer("b").input_ids[-1]] = torch.nan
    streamed = stream_harvest(subject, corpus, "resid_pre.0", buffer_tokens=10_000)
    sites, options = streamed.sites, {"batch_tokens": 100, "epochs": 1}
    with pytest.raises(NonFiniteError, match=r"at 'resid_pre\.0' in context .* \(document 'text-"):
        list(streamed.joint_stream(sites, generator=generator(0), **options))
    rows = torch.cat(
        list(
            streamed.joint_stream(sites, generator=generator(0), refuse_non_finite=False, **options)
        )
    )
    finite = rows.isfinite().all(1)
    assert 0 < (~finite).sum() < len(rows) / 2
    with pytest.raises(NonFiniteError):
        streamed.joint_moments(sites)
    (moments,) = streamed.joint_moments(sites, finite_only=True)
    assert moments.count >= finite.sum()
    assert moments.covariance.isfinite().all()


def test_sites_are_found_by_name_and_refused_where_they_cannot_be(stored: Harvest):
    assert stored.find_all(["head_out.0", SITES[0]]) == (SITES[1], SITES[0])
    assert stored.find_all("head_out.0") == (SITES[1],)
    with pytest.raises(ValueRangeError, match=r"each named once; got head_out\.0, head_out\.0"):
        stored.find_all(["head_out.0", "head_out.0"])
    with pytest.raises(ValueRangeError, match="each named once; got none"):
        stored.find_all([])
    with pytest.raises(ValueRangeError, match="must be named where several"):
        stored.find_all(None)
    with pytest.raises(UnknownNameError, match=r"got 'head_out\.1'"):
        stored.find_all(["head_out.0", "head_out.1"])
    rows = spoilt(torch.ones(20, 3))
    with pytest.raises(ValueRangeError, match="one site at a time; got resid_post"):
        rows.joint_stream(SITES[:2], batch_tokens=2, generator=generator(0))
