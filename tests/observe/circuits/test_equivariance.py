"""Kernels turned onto each other."""

import math

import pytest
import torch

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.randomness import generator
from modelassay.observe.circuits.equivariance import equivariance, rotated
from tests.observe.circuits.test_tuning import gabors


def test_quarter_turns_are_exact_and_counter_clockwise():
    kernel = torch.rand(2, 7, 7, generator=generator(0))
    for quarters in range(4):
        turned = rotated(kernel, quarters * math.pi / 2)
        assert torch.allclose(turned, kernel.rot90(quarters, (1, 2)), atol=1e-5)


def test_one_filter_in_six_orientations_is_a_family():
    degrees = [0, 30, 60, 90, 120, 150]
    angles = torch.tensor([math.radians(degree) for degree in degrees])
    found = equivariance(gabors(degrees)[:, None], angles, period=math.pi)
    assert float(found.turned.min()) > 0.9
    assert float(found.turned.mean()) > float(found.random.mean()) + 0.1
    assert float(found.turned.mean()) > float(found.unturned.mean()) + 0.1
    assert found.p_value == 0.01


def test_unrelated_filters_are_none():
    kernels = torch.randn(6, 3, 7, 7, generator=generator(1))
    angles = torch.rand(6, generator=generator(2)) * 2 * math.pi
    found = equivariance(kernels, angles)
    assert found.p_value > 0.05


def test_too_few_members_and_oblong_kernels_are_refused():
    with pytest.raises(TooFewTokensError, match="3 or more members"):
        equivariance(gabors([0, 90])[:, None], torch.zeros(2))
    with pytest.raises(ShapeError, match="square and 3 or wider; got 3 by 5"):
        equivariance(torch.ones(3, 1, 3, 5), torch.zeros(3))
