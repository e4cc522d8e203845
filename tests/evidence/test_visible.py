from collections.abc import Callable

import pytest
import torch

from modelassay.activations.harvest import Harvest
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.decompositions.linear import Neurons, RandomDictionary
from modelassay.evidence.visible import Visibility, visible
from modelassay.subjects.fisher import score_gradients
from modelassay.subjects.subject import Subject
from tests.evidence.planted import IGNORED, LOUD, SITE


@pytest.fixture(scope="module")
def planted(planted_subject: Subject, harvested: Callable[[Subject], Harvest]) -> Visibility:
    harvest = harvested(planted_subject)
    neurons = Neurons(12, SITE)
    codes = neurons.encode(harvest.activations())
    return visible(
        planted_subject, neurons, codes, harvest, draws=2, null_directions=64,
        generator=generator(0), progress=SILENT,
    )  # fmt: skip


def test_the_output_does_not_see_what_nothing_reads(planted: Visibility):
    evidence = planted.visible_variance
    assert evidence.value[IGNORED] == pytest.approx(0, abs=1e-6)
    assert evidence.high[IGNORED] < 1e-6
    assert planted.euclidean[IGNORED] > 0.01
    assert evidence.value.argmax() == LOUD
    assert evidence.low[LOUD] > 1
    assert (evidence.low <= evidence.value).all()
    assert (evidence.value <= evidence.high).all()


def test_covariance_drawn_directions_are_about_one_by_construction(planted: Visibility):
    random = torch.tensor([kind == "random" for kind in planted.null_kind])
    assert int(random.sum()) == 64
    assert len(random) == 64 + 12
    # Weighted by variance, as the unit is: sum of Fisher over sum of Euclidean variance.
    pca = ~random
    total = planted.fisher.sum() / planted.euclidean.sum()
    rotated = planted.null_fisher[pca].sum() / planted.null_euclidean[pca].sum()
    assert float(rotated / total) == pytest.approx(1, abs=0.35)
    assert planted.null_euclidean[pca].sum() == pytest.approx(
        float(planted.euclidean.sum()), rel=1e-3
    )


def test_neurons_explain_everything_in_both_metrics(planted: Visibility):
    assert planted.explained_variance_fisher.value[0] == pytest.approx(1)


def test_sums_match_the_definition_token_by_token(
    subject: Subject, harvested: Callable[[Subject], Harvest]
):
    harvest = harvested(subject)
    dictionary = RandomDictionary(20, 12, 4, generator=generator(3), site=SITE)
    codes = dictionary.encode(harvest.activations())
    found = visible(
        subject, dictionary, codes, harvest, n_contexts=len(harvest.contexts), draws=1,
        null_directions=8, generator=generator(7), progress=SILENT,
    )  # fmt: skip
    # The same gradients: the permutation of contexts and the null directions are drawn first.
    rng = generator(7)
    torch.randperm(len(harvest.contexts), generator=rng)
    torch.randn(8, 12, generator=rng)
    rows, gradients = [], []
    for part in torch.arange(len(harvest.contexts)).split(16):
        batch = harvest.contexts[part]
        x, g = score_gradients(subject, SITE, batch.tokens, batch.mask, draws=1, generator=rng)
        rows.append(x[batch.measured])
        gradients.append(g[0][batch.measured])
    x, g = torch.cat(rows).double(), torch.cat(gradients).double()
    torch.testing.assert_close(x.float(), harvest.activations(), rtol=1e-4, atol=1e-5)
    z, directions = codes.dense().double(), dictionary.directions.detach().double()
    centred = z - z.mean(0)
    fisher = (centred.square() * (g @ directions.T).square()).mean(0) / 2
    torch.testing.assert_close(found.fisher.double(), fisher, rtol=1e-4, atol=1e-8)
    euclidean = z.var(0, correction=0) * directions.square().sum(1)
    torch.testing.assert_close(found.euclidean.double(), euclidean, rtol=1e-4, atol=1e-8)
    covariance = x.T.cov(correction=0)
    unit = (g @ covariance * g).sum(1).mean() / (2 * covariance.trace())
    measured = ~found.visible_variance.value.isnan()
    assert measured.any()
    torch.testing.assert_close(
        found.visible_variance.value[measured].double(),
        (fisher / euclidean / unit)[measured],
        rtol=1e-3,
        atol=1e-6,
    )
    error = x - dictionary(x.float()).detach().double()
    seen = (g * error).sum(1).square().mean() / (g * (x - x.mean(0))).sum(1).square().mean()
    assert found.explained_variance_fisher.value[0] == pytest.approx(float(1 - seen), rel=1e-3)


def test_only_some_contexts_are_used(
    planted_subject: Subject, harvested: Callable[[Subject], Harvest]
):
    harvest = harvested(planted_subject)
    neurons = Neurons(12, SITE)
    found = visible(
        planted_subject, neurons, neurons.encode(harvest.activations()), harvest, n_contexts=10,
        draws=1, null_directions=4, generator=generator(0), progress=SILENT,
    )  # fmt: skip
    assert int(found.explained_variance_fisher.n[0]) < len(harvest.rows) / 3
