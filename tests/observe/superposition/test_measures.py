"""Measures on polytopes whose fractions are known."""

import math

import pytest
import torch
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.observe.superposition.adversarial import attacks, vulnerability
from modelassay.observe.superposition.data import FeatureData
from modelassay.observe.superposition.measures import (
    dimensionality,
    dimensions_per_feature,
    features_per_neuron,
    interference,
    nearest_fraction,
    polytopes,
)
from modelassay.observe.superposition.models import ToyModels


def regular(count: int) -> Tensor:
    angles = torch.arange(count) * 2 * math.pi / count
    return torch.stack([angles.cos(), angles.sin()])


def tetrahedron() -> Tensor:
    corners = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    return torch.tensor(corners).T / math.sqrt(3)


def antiprism() -> Tensor:
    height = 1 / math.sqrt(3)  # where the eight points fill all directions alike
    radius = math.sqrt(1 - height**2)
    corners = [
        [
            radius * math.cos(math.pi * (k / 2 + turn)),
            radius * math.sin(math.pi * (k / 2 + turn)),
            side * height,
        ]
        for side, turn in ((1, 0.0), (-1, 0.25))
        for k in range(4)
    ]
    return torch.tensor(corners).T


def tegum(*parts: Tensor) -> Tensor:
    return torch.block_diag(*parts)


DIGON = torch.tensor([[1.0, -1.0]])
KNOWN = [
    ("own dimension", torch.ones(1, 1), 1.0),
    ("digon", DIGON, 1 / 2),
    ("triangle", regular(3), 2 / 3),
    ("tetrahedron", tetrahedron(), 3 / 4),
    ("pentagon", regular(5), 2 / 5),
    ("square antiprism", antiprism(), 3 / 8),
]


@pytest.mark.parametrize(("name", "weights", "fraction"), KNOWN)
def test_a_polytope_is_named_and_has_its_fraction(name: str, weights: Tensor, fraction: float):
    shares = dimensionality(1.13 * weights)
    assert float(shares.mean()) == pytest.approx(fraction, abs=0.004)
    (found,) = polytopes(1.13 * weights)
    assert found.name == name
    assert nearest_fraction(fraction) == name
    assert float(shares.sum()) == pytest.approx(len(weights), abs=0.03)


def test_tegum_products_fall_apart_into_their_factors():
    cases = [
        (tegum(regular(3), DIGON), ["triangle", "digon"]),
        (tegum(regular(5), DIGON), ["pentagon", "digon"]),
        (tegum(DIGON, DIGON, DIGON), ["digon"] * 3),
    ]
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=derived(0, "rotation"))).Q
    for weights, names in cases:
        assert [part.name for part in polytopes(rotation @ weights)] == names
        torch.testing.assert_close(dimensionality(rotation @ weights).sum(), torch.tensor(3.0))


def test_interference_and_dimensions_per_feature_follow_their_definitions():
    weights = 1.2 * regular(5)
    assert float(interference(weights)[0]) == pytest.approx(1.44 * 1.5)
    assert float(dimensions_per_feature(weights)) == pytest.approx(2 / (5 * 1.44))
    assert float(dimensionality(torch.zeros(2, 3)).sum()) == 0
    assert polytopes(torch.zeros(2, 3)) == ()
    assert nearest_fraction(0.58) == "between"


def test_neurons_count_their_features():
    rows = torch.tensor([[[1.0, 0, 0], [1, 1, 0], [1, -1, 1]]])
    torch.testing.assert_close(features_per_neuron(rows), torch.tensor([[1.0, 2, 3]]))


def test_a_dimension_of_its_own_is_as_vulnerable_as_the_attack_is_long():
    models = ToyModels(encoder=torch.eye(3)[None], bias=torch.zeros(1, 3))
    data = FeatureData(density=torch.full((1, 3), 0.3))
    assert float(vulnerability(models, data, derived(0, "v"))) == pytest.approx(1, abs=1e-4)


def test_the_attack_is_the_gradient_and_a_pentagon_is_moved_as_the_formula_says():
    models = ToyModels(encoder=1.13 * regular(5)[None], bias=torch.zeros(1, 5), output_relu=False)
    inputs = torch.rand(1, 1, 5, requires_grad=True)
    models(inputs)[0, 0, 2].backward()
    assert inputs.grad is not None
    slope = inputs.grad[0, 0]
    torch.testing.assert_close(attacks(models)[0, 2], slope / slope.norm())
    data = FeatureData(density=torch.full((1, 5), 0.05))
    # |(W^T W)_i| = |W_i|^2 sqrt(5/2)
    expected = 1.13**2 * math.sqrt(2.5)
    assert float(vulnerability(models, data, derived(0, "v"))) == pytest.approx(expected, rel=1e-3)
