"""Contrasts: slow definitions, nulls that must stay silent, and planted differences."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.contrast import contrast
from modelassay.observe.contrast_documents import Responses, responses
from modelassay.observe.contrast_statistics import adjusted, effects, permutation_p, wilson
from tests.observe.unit_cases import SITE, made_harvest, sparse_units


def made_responses(means, *, groups=None, classes=None):
    n = len(means)
    groups = np.arange(n) if groups is None else groups
    return Responses(
        groups=groups, names=tuple(f"d{i}" for i in range(int(groups.max()) + 1)),
        classes=np.zeros(n, dtype=np.int64) if classes is None else classes,
        tokens=np.full(n, 10), means=means, rates=(means > 0).astype(np.float64),
    )  # fmt: skip


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12))
def test_effect_sizes_are_those_of_the_definitions(seed, n_a, n_b):
    draw = np.random.default_rng(seed)
    means = np.round(draw.normal(size=(n_a + n_b, 3)), 1)
    side = np.arange(n_a + n_b) < n_a
    found = effects(means, (means > 0).astype(float), side, np.arange(len(side)))
    for unit in range(3):
        a, b = means[side, unit], means[~side, unit]
        wins = (a[:, None] > b).mean() + (a[:, None] == b).mean() / 2
        assert found.auroc[unit] == pytest.approx(wins)
        pooled = np.sqrt(((n_a - 1) * a.var(ddof=1) + (n_b - 1) * b.var(ddof=1)) / (n_a + n_b - 2))
        if pooled > 0:
            hedges = (a.mean() - b.mean()) / pooled * (1 - 3 / (4 * (n_a + n_b) - 9))
            assert found.difference[unit] == pytest.approx(hedges)
        assert found.rate[unit] == pytest.approx((a > 0).mean() - (b > 0).mean())
        assert found.low[unit] <= found.auroc[unit] <= found.high[unit]


def test_the_aurocs_interval_covers_as_often_as_it_says():
    # A shifted by one standard deviation: the AUROC is Phi(1 / sqrt 2).
    true = scipy.stats.norm.cdf(1 / np.sqrt(2))
    draw = np.random.default_rng(0)
    side = np.arange(80) < 40
    found = effects(
        draw.normal(size=(80, 2000)) + side[:, None], np.zeros((80, 2000)), side, np.arange(80)
    )
    covered = ((found.low <= true) & (true <= found.high)).mean()
    assert 0.92 < covered < 0.97


def test_permuted_p_values_are_those_of_the_exact_test():
    draw = np.random.default_rng(1)
    means, side = draw.normal(size=(16, 4)) + np.linspace(0, 1, 4), np.arange(16) < 8
    means[side] += 0.7
    found = permutation_p(means, side, np.arange(16), generator(0), n_permutations=20_000)
    for unit in range(4):
        exact = scipy.stats.mannwhitneyu(means[side, unit], means[~side, unit], method="exact")
        assert found[unit] == pytest.approx(exact.pvalue, abs=0.012)


def test_p_values_under_the_null_are_uniform_for_documents_and_for_pairs():
    draw = np.random.default_rng(2)
    for groups in (np.arange(60), np.repeat(np.arange(30), 2)):
        # Documents differ from each other: what is paired must not take that for an effect.
        means = draw.normal(size=(60, 600)) + 3 * draw.normal(size=(60, 600))[groups]
        side = np.arange(60) % 2 == 0
        p = permutation_p(means, side, groups, generator(3), n_permutations=499)
        assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_planted_differences_are_found_and_replicate_and_others_are_not():
    draw = np.random.default_rng(4)
    side = np.arange(120) < 60
    means = draw.normal(size=(120, 400))
    means[side, :10] += 1.5
    means[side, 10:20] -= 1.5
    found = contrast(made_responses(means), side, generator(0))
    planted = np.arange(400) < 20
    assert found.replicated[planted].all()
    assert not found.paired
    assert found.n_discovery == found.n_replication == (30, 30)
    false = int((~planted[found.discovered]).sum())
    assert false <= 4  # 5 % of some twenty
    share, low, high = found.replication_share
    assert low <= share <= high
    assert share >= 20 / (20 + false) - 1e-9
    assert found.sign_share[0] >= 20 / (20 + false) - 1e-9
    assert set(np.sign(found.replication.difference[:20]).tolist()) == {1.0, -1.0}


def test_without_a_difference_hardly_anything_is_discovered():
    # Benjamini-Hochberg: under the complete null, any discovery at all in 5 % of the experiments.
    draw, any_found = np.random.default_rng(5), 0
    side = np.arange(40) < 20
    for seed in range(40):
        found = contrast(
            made_responses(draw.normal(size=(40, 50))), side, generator(seed), n_permutations=999
        )
        any_found += len(found.discovered) > 0
    assert any_found <= 6  # P(more than 6 of 40 at 5 %) < 0.01


def test_pairs_within_documents_are_compared_with_themselves():
    draw = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 2)
    side = np.arange(80) % 2 == 0
    # A small effect beside large differences between documents: only pairing can see it.
    means = 5 * draw.normal(size=(40, 30))[groups] + 0.3 * draw.normal(size=(80, 30))
    means[side, :5] += 0.6
    lonely = np.full(3, 40) + np.arange(3)
    more = made_responses(
        np.concatenate([means, draw.normal(size=(3, 30))]), groups=np.concatenate([groups, lonely])
    )
    found = contrast(more, np.append(side, [True, True, False]), generator(0))
    assert found.paired
    assert found.n_discovery == (20, 20)
    assert set(found.discovered.tolist()) >= set(range(5))
    apart = contrast(made_responses(means), side, generator(0))
    assert len(apart.discovered) == 0


def test_responses_are_means_over_each_documents_tokens():
    harvest, units = made_harvest(), sparse_units()
    values = units(harvest.activations(SITE)).dense().double().numpy()
    owner = harvest.contexts.measured.nonzero()[:, 0].numpy()
    found = responses(harvest, SITE, units, batch_contexts=7)
    for document in range(40):
        np.testing.assert_allclose(found.means[document], values[owner == document].mean(0))
        rate = (values[owner == document] > 0).mean(0)
        np.testing.assert_allclose(found.rates[document], rate)
    labels = (harvest.contexts.tokens > 4).long() - (harvest.contexts.tokens == 0).long()
    labels[harvest.contexts.tokens == 0] = -1
    by_class = responses(harvest, SITE, units, labels=labels, min_tokens=2)
    kind = labels[harvest.contexts.measured].numpy()
    for item in range(len(by_class)):
        rows = (owner == by_class.groups[item]) & (kind == by_class.classes[item])
        assert by_class.tokens[item] == rows.sum() >= 2
        np.testing.assert_allclose(by_class.means[item], values[rows].mean(0))


def test_what_cannot_be_compared_is_refused():
    one = made_responses(np.zeros((16, 2)))
    side = np.arange(16) < 8
    with pytest.raises(ShapeError, match="for each of 16 items; got 3"):
        contrast(one, side[:3], generator(0))
    with pytest.raises(ValueRangeError, match="fdr must be between 0 and 1; got 0"):
        contrast(one, side, generator(0), fdr=0.0)
    with pytest.raises(TooFewTokensError, match="for two halves; got 4 of A"):
        contrast(one, np.arange(16) < 4, generator(0))
    with pytest.raises(ShapeError, match="labels must be"):
        responses(made_harvest(), SITE, sparse_units(), labels=torch.zeros(2, 2).long())
    with pytest.raises(TooFewTokensError, match="a document with 99 tokens"):
        responses(made_harvest(), SITE, sparse_units(), min_tokens=99)


def test_adjusted_is_benjamini_hochbergs_and_wilson_wilsons():
    np.testing.assert_allclose(
        adjusted(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    )
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(10, 10)[1] == 1.0
    assert np.isnan(wilson(0, 0)[0])
