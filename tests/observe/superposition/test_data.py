"""Densities, sets and values of sparse features."""

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.superposition.data import FeatureData, spaced_densities

ROWS = 40_000


def test_features_are_on_as_often_as_told_and_uniform():
    density = torch.tensor([[1.0, 0.3, 0.01]])
    rows = FeatureData(density=density).sample(ROWS, derived(0, "data"))[0]
    torch.testing.assert_close((rows > 0).float().mean(0), density[0], atol=0.01, rtol=0)
    on = rows[:, 1][rows[:, 1] > 0]
    assert float(on.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(on.var()) == pytest.approx(1 / 12, abs=0.003)


def test_correlated_sets_are_on_together_with_values_of_their_own():
    data = FeatureData(density=torch.full((1, 4), 0.2), relation="correlated", set_size=2)
    rows = data.sample(ROWS, derived(0, "data"))[0]
    on = rows > 0
    assert torch.equal(on[:, 0], on[:, 1])
    assert float(on[:, 0].float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float((on[:, 0] & on[:, 2]).float().mean()) == pytest.approx(0.04, abs=0.005)
    both = rows[on[:, 0], :2]
    assert abs(float(torch.corrcoef(both.T)[0, 1])) < 0.05


def test_of_anticorrelated_sets_one_at_most_is_on():
    data = FeatureData(density=torch.full((1, 4), 0.3), relation="anticorrelated", set_size=2)
    on = data.sample(ROWS, derived(0, "data"))[0] > 0
    assert not (on[:, 0] & on[:, 1]).any()
    torch.testing.assert_close(on.float().mean(0), torch.full((4,), 0.3), atol=0.01, rtol=0)


def test_signed_features_have_both_signs():
    rows = FeatureData(density=torch.full((1, 1), 1.0), signed=True).sample(ROWS, derived(0, "d"))
    assert float(rows.mean()) == pytest.approx(0, abs=0.02)
    assert -1 <= float(rows.min()) < -0.99


def test_densities_go_from_dense_to_sparse():
    torch.testing.assert_close(spaced_densities(3, 20.0), torch.tensor([1.0, 20**-0.5, 1 / 20]))


@pytest.mark.parametrize(
    ("density", "more", "said"),
    [
        ([[0.0, 0.5]], {}, "above 0"),
        ([[0.6, 0.6]], {"relation": "anticorrelated", "set_size": 2}, "at most 0.5"),
        ([[0.2, 0.2]], {"relation": "correlated", "set_size": 3}, "set_size must divide"),
        ([[0.1, 0.2]], {"relation": "correlated", "set_size": 2}, "one density"),
    ],
)
def test_impossible_data_is_refused(density: list[list[float]], more: dict, said: str):
    with pytest.raises(ValueRangeError, match=said):
        FeatureData(density=torch.tensor(density), **more)
