"""Closed forms against sampling, and the boundaries that follow from them."""

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.superposition.data import FeatureData
from modelassay.observe.superposition.models import ToyModels
from modelassay.observe.superposition.quadrature import quadrature
from modelassay.observe.superposition.theory import (
    CANDIDATES,
    boundary,
    candidate_losses,
    predicted_phase,
)

WEIGHTS = {
    (2, 1): [[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, -1.0]]],
    (3, 2): [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]],
        [[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]],
    ],
}
P, R = 0.4, 0.7


def candidates(size: tuple[int, int]) -> tuple[ToyModels, torch.Tensor]:
    encoder = torch.tensor(WEIGHTS[size])
    # A feature without weights is answered by its mean.
    bias = torch.where(encoder.norm(dim=1) == 0, P / 2, 0.0)
    importance = torch.ones(size[0])
    importance[-1] = R
    return ToyModels(encoder=encoder, bias=bias), importance.expand_as(bias)


@pytest.mark.parametrize("size", list(CANDIDATES))
def test_closed_forms_are_what_sampling_gives(size: tuple[int, int]):
    models, importance = candidates(size)
    data = FeatureData(density=torch.full_like(models.bias, P))
    inputs = data.sample(200_000, derived(0, "closed forms"))
    sampled = models.loss(inputs, inputs, importance)
    expected = candidate_losses(
        torch.tensor(P), torch.tensor(R), n_features=size[0], n_hidden=size[1]
    )
    torch.testing.assert_close(sampled, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("size", list(CANDIDATES))
def test_the_quadrature_integrates_them(size: tuple[int, int]):
    models, importance = candidates(size)
    grid = quadrature(torch.full((len(models.bias),), P), size[0])
    inputs, weights = grid.batch(0, derived(0, "unused"))
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    expected = candidate_losses(
        torch.tensor(P), torch.tensor(R), n_features=size[0], n_hidden=size[1]
    )
    found = models.loss(inputs, inputs, importance, weights)
    torch.testing.assert_close(found, expected, rtol=0.006, atol=0)


def test_three_phases_meet_at_four_sevenths():
    assert boundary(1.0) == pytest.approx(4 / 7)
    losses = candidate_losses(torch.tensor(4 / 7), torch.tensor(1.0), n_features=2, n_hidden=1)
    torch.testing.assert_close(losses, losses[:1].expand(3))


@pytest.mark.parametrize("importance", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_the_cheapest_candidate_changes_at_the_boundary(importance: float):
    density = torch.tensor([boundary(importance) - 0.01, boundary(importance) + 0.01])
    phases = predicted_phase(density, torch.full((2,), importance), n_features=2, n_hidden=1)
    assert phases[0] == 2
    assert phases[1] != 2


def test_other_sizes_have_no_closed_form():
    with pytest.raises(ValueRangeError, match="got 5 in 2"):
        candidate_losses(torch.tensor(P), torch.tensor(R), n_features=5, n_hidden=2)
    with pytest.raises(ValueRangeError, match="got 4"):
        quadrature(torch.tensor([P]), 4)
