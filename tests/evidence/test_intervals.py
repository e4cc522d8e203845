import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelassay.core.randomness import generator
from modelassay.evidence.intervals import (
    MIN_DOCUMENTS,
    document_interval,
    document_replicates,
    false_discovery_q_values,
    pseudo_median,
    resampling_weights,
    signed_rank_p_values,
)


def clustered(n_documents: int, seed: int) -> torch.Tensor:
    """Values of 10 tokens each in documents that differ by as much as their tokens do."""
    rng = generator(seed)
    offsets = torch.randn(n_documents, 1, generator=rng)
    return offsets + torch.randn(n_documents, 10, generator=rng)


def test_replicates_match_resampling_the_tokens_themselves():
    values = clustered(7, 0).double()
    tables = (values.sum(1, keepdim=True), torch.full((7, 1), 10.0, dtype=torch.float64))
    fast = document_replicates(tables, torch.div, generator(1))
    weights = resampling_weights(7, generator(1))
    for replicate, weight in zip(fast[:50], weights[:50], strict=True):
        tokens = torch.cat([values[d] for d in range(7) for _ in range(int(weight[d]))])
        assert float(replicate) == pytest.approx(float(tokens.mean()), rel=1e-5, abs=1e-6)
    assert (weights.sum(1) == 7).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        values = clustered(30, seed).double()
        tables = (values.sum(1, keepdim=True), torch.full((30, 1), 10.0, dtype=torch.float64))
        interval = document_interval(tables, torch.div, generator(seed))
        covered += bool(interval.low[0] <= 0 <= interval.high[0])
    # 95 % within 3.3 standard errors; an interval over tokens would cover about half.
    assert 0.89 <= covered / 200 <= 1.0


def test_too_few_documents_give_no_interval():
    table = torch.ones(MIN_DOCUMENTS - 1, 3, dtype=torch.float64)
    interval = document_interval((table,), lambda sums: sums, generator(0))
    assert interval.low.isnan().all()
    assert interval.high.isnan().all()


def test_a_statistic_that_is_mostly_undefined_gives_no_interval():
    table = torch.zeros(8, 2, dtype=torch.float64)
    table[0, 0] = 1  # in a resample with probability 0.66, but 1/0 otherwise
    ratio = document_interval((table, table), torch.div, generator(0))
    assert float(ratio.low[0]) == float(ratio.high[0]) == 1.0
    assert ratio.low[1].isnan()


@given(st.integers(1, 30), st.integers(0, 1000))
def test_signed_rank_agrees_with_scipy_row_by_row(n_samples: int, seed: int):
    differences = torch.randn(4, n_samples, generator=generator(seed)) + 0.3
    expected = [stats.wilcoxon(row.double().numpy(), method="exact").pvalue for row in differences]
    padded = torch.cat([differences, torch.full((4, 3), torch.nan)], dim=1)
    assert signed_rank_p_values(padded).numpy() == pytest.approx(expected, rel=1e-5)


def test_signed_rank_with_ties_zeros_and_nothing():
    differences = torch.tensor(
        [
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            [0.0] * 8,
            [torch.nan] * 8,
            [0.0, 0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0],
        ]
    )
    p_values = signed_rank_p_values(differences)
    assert p_values[0] < 0.01
    assert p_values[1] == 1
    assert p_values[2].isnan()
    assert p_values[3] == pytest.approx(1.0)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=30))
def test_q_values_match_the_definition(p_values: list[float]):
    given_p = torch.tensor(p_values, dtype=torch.float32)
    q_values = false_discovery_q_values(given_p)
    measured = [p for p in given_p.tolist() if not np.isnan(p)]
    for p, q in zip(given_p.tolist(), q_values.tolist(), strict=True):
        if np.isnan(p):
            assert np.isnan(q)
            continue
        above = [other for other in measured if other >= p]
        expected = min(len(measured) * o / sum(x <= o for x in measured) for o in above)
        assert q == pytest.approx(min(1.0, expected), rel=1e-4, abs=1e-7)


def test_false_discoveries_stay_at_the_level():
    rng, level, shares = generator(0), 0.1, []
    for _ in range(100):
        differences = torch.randn(200, 12, generator=rng)
        differences[:40] += 1.5  # 40 true effects among 160 noughts
        found = false_discovery_q_values(signed_rank_p_values(differences)) <= level
        shares.append(float(found[40:].sum() / found.sum().clamp(min=1)))
        assert found[:40].float().mean() > 0.5
    # The expectation is level * 160 / 200 = 0.08; three standard errors above it is still < level.
    assert np.mean(shares) <= level


@given(st.integers(1, 12), st.integers(0, 1000))
def test_pseudo_median_matches_the_definition_and_agrees_with_the_test(n: int, seed: int):
    values = torch.randn(3, n, generator=generator(seed)) + 0.6
    centre, interval = pseudo_median(torch.cat([values, torch.full((3, 2), torch.nan)], dim=1))
    p_values = signed_rank_p_values(values)
    for row, found in enumerate(values.double().numpy()):
        pairs = [(found[i] + found[j]) / 2 for i in range(n) for j in range(i, n)]
        assert float(centre[row]) == pytest.approx(float(np.median(pairs)), rel=1e-4, abs=1e-6)
        if n < 6:
            assert interval.low[row].isnan()
            continue
        # The interval leaves 0 out exactly where the test rejects it.
        outside = bool(interval.low[row] > 0) or bool(interval.high[row] < 0)
        assert outside == bool(p_values[row] <= 0.05)
        for end in (interval.low[row], interval.high[row]):
            inside = values[row] - end + 1e-4 * (1 if end == interval.low[row] else -1)
            assert float(signed_rank_p_values(-inside[None])[0]) > 0.025


def test_pseudo_median_of_many_and_of_none():
    values = torch.randn(2, 80, generator=generator(0)) + 1
    values[1] = torch.nan
    centre, interval = pseudo_median(values)
    assert centre[0] == pytest.approx(1, abs=0.4)
    # 95 % of a normal's mean from 80: about 2 * 1.96 / sqrt(80 * 3 / pi).
    assert interval.high[0] - interval.low[0] == pytest.approx(0.45, abs=0.12)
    assert centre[1].isnan()
    assert pseudo_median(torch.full((2, 3), torch.nan))[0].isnan().all()


def test_the_pseudo_median_is_covered_as_often_as_its_interval_says():
    values = torch.randn(2000, 15, generator=generator(0)).exp() - 1.0
    values = values - values.median()
    symmetric = values * torch.randn(2000, 15, generator=generator(1)).sign()
    _, interval = pseudo_median(symmetric)
    covered = float(((interval.low <= 0) & (interval.high >= 0)).float().mean())
    assert 0.94 <= covered <= 0.97  # exact: 1 - 2 * 0.0209 = 0.958 for 15 samples
