"""A circle from co-occurrence: in order with weight decay, and what R makes of it."""

import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.testbeds.cooccurrence import (
    N_FEATURES,
    TiedAutoencoder,
    co_occurring,
    trained_on_co_occurrence,
)


@pytest.fixture(scope="module")
def decayed() -> TiedAutoencoder:
    return trained_on_co_occurrence(1)


def test_neighbours_are_active_together():
    x = co_occurring(20_000, generator(0))
    correlation = torch.corrcoef(x.T)
    by_distance = [float(correlation[0, i]) for i in range(7)]
    assert by_distance == sorted(by_distance, reverse=True)
    # A feature's rate: the mean of sigmoid(5 cos - 2) around the circle, and a little noise.
    angle = torch.linspace(0, 2 * torch.pi, 1000)
    rate = float((5 * angle.cos() - 2).sigmoid().mean())
    assert float(x.mean()) == pytest.approx(rate, abs=0.01)


def test_weight_decay_puts_the_features_on_a_circle_in_order(decayed: TiedAutoencoder):
    assert decayed.in_order() == 1
    spread = torch.linalg.svdvals(decayed.embedding - decayed.embedding.mean(0))
    assert float(spread[1]) > 4 * float(spread[2])  # in a plane


def test_without_weight_decay_they_are_not_in_order():
    assert trained_on_co_occurrence(1, weight_decay=0.0).in_order() < 0.7


def test_a_naming_reader_follows_where_the_circle_is_all_there_is(decayed: TiedAutoencoder):
    # A limit of R, measured: it does not tell naming from adding here.
    assert decayed.response() > 0.9
    assert decayed.embedding.shape == (N_FEATURES, 6)
