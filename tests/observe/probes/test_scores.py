"""Scores against their definitions, and the bootstrap against theory."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.observe.probes.scores import (
    group_weights,
    measure,
    scores_of,
    weighted_auroc,
    weighted_average_precision,
    weighted_ece,
    weighted_f1,
)

ONE = torch.ones(1, 8, dtype=torch.float64)
VALUES = torch.tensor([0.1, 0.4, 0.35, 0.8, 0.4, 0.9, 0.2, 0.6], dtype=torch.float64)
POSITIVE = torch.tensor([0, 0, 1, 1, 1, 1, 0, 0], dtype=torch.bool)


def test_auroc_counts_pairs():
    wins = sum(
        (p > n) + (p == n) / 2
        for p in VALUES[POSITIVE].tolist()
        for n in VALUES[~POSITIVE].tolist()
    )
    assert float(weighted_auroc(VALUES, POSITIVE, ONE)) == pytest.approx(wins / 16)


def test_average_precision_by_hand():
    # Thresholds from above: .9 (1/1), .8 (2/2), .6 (2/3), .4 twice (3/5), .35 (4/6).
    expected = (1 + 1 + 3 / 5 + 4 / 6) / 4
    assert float(weighted_average_precision(VALUES, POSITIVE, ONE)) == pytest.approx(expected)


def test_f1_by_hand():
    chosen = VALUES > 0.5  # 2 hits, 1 false alarm, 2 misses
    assert float(weighted_f1(chosen, POSITIVE, ONE)) == pytest.approx(4 / 7)


def test_calibration_error_by_hand():
    likely = torch.tensor([[0.1, 0.9]] * 4 + [[0.35, 0.65]] * 4, dtype=torch.float64)
    labels = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0])
    # |0.75 - 0.9| and |0.5 - 0.65|, half of the items each
    assert float(weighted_ece(likely, labels, ONE)) == pytest.approx(0.15)


@given(seed=st.integers(0, 200))
def test_a_weight_is_a_repetition(seed: int):
    g = generator(seed)
    counts = torch.randint(0, 4, (8,), generator=g)
    counts[[0, 2]] = 1  # both classes stay
    repeated = torch.arange(8).repeat_interleave(counts)
    many = torch.ones(1, len(repeated), dtype=torch.float64)
    for statistic in (weighted_auroc, weighted_average_precision):
        assert torch.allclose(
            statistic(VALUES, POSITIVE, counts.double()[None]),
            statistic(VALUES[repeated], POSITIVE[repeated], many),
        )


def test_the_interval_of_a_share_is_that_of_theory():
    hits = torch.arange(400) % 2 == 0
    weights = group_weights(torch.arange(400), generator(0))
    found = measure(lambda w: w @ hits.double() / w.sum(1), weights)
    assert found.value == 0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.5 / 20, rel=0.1)


def test_groups_widen_the_interval():
    hits = torch.arange(400) % 40 < 20  # twenty groups of twenty, all right or all wrong
    weights = group_weights(torch.arange(400) // 20, generator(0))
    found = measure(lambda w: w @ hits.double() / w.sum(1), weights)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.5 / math.sqrt(20), rel=0.15)


def test_few_groups_give_no_interval():
    likely = torch.rand(20, 2, generator=generator(0), dtype=torch.float64).softmax(1)
    scores = scores_of(likely, torch.arange(20) % 2, torch.arange(20) % 4, generator(0))
    assert math.isnan(scores.accuracy.low)
    assert not math.isnan(scores.accuracy.value)


def test_three_classes_average_over_classes():
    labels = torch.arange(30) % 3
    likely = torch.nn.functional.one_hot(labels, 3).double()
    scores = scores_of(likely, labels, torch.arange(30), generator(0))
    assert scores.accuracy.value == scores.auroc.value == scores.f1.value == 1.0
    assert scores.ece.value == 0.0
