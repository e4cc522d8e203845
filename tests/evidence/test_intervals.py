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
    resampling_weights,
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
        p_values = torch.from_numpy(stats.wilcoxon(differences.double().numpy(), axis=1).pvalue)
        found = false_discovery_q_values(p_values.float()) <= level
        shares.append(float(found[40:].sum() / found.sum().clamp(min=1)))
        assert found[:40].float().mean() > 0.5
    # The expectation is level * 160 / 200 = 0.08; three standard errors above it is still < level.
    assert np.mean(shares) <= level
