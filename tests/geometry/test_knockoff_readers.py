"""Readers with a fixed budget, and the share of geometry that a knock-off keeps."""

import math

import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.geometry.knockoff_readers import (
    performance,
    predictions,
    superposition_suffices,
    usable_geometry,
)


def test_ridge_reads_what_is_linear_and_is_the_same_in_a_rotated_space():
    x = torch.randn(200, 5, generator=generator(0)) * 3 + 1
    labels = x @ torch.randn(5, 2, generator=generator(1)) - 4
    found = predictions("ridge", x[:100], labels[:100], x[100:], generator(2))
    assert performance(found, labels[100:]) > 0.999
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator(3)))[0]
    again = predictions("ridge", x[:100] @ turn, labels[:100], x[100:] @ turn, generator(2))
    torch.testing.assert_close(found, again, atol=1e-3, rtol=0)


def test_an_mlp_reads_what_is_not_linear():
    x = torch.randn(1200, 3, generator=generator(0))
    labels = (x[:, :1] * x[:, 1:2]).abs()
    ridge, mlp = (
        performance(
            predictions(reader, x[:1000], labels[:1000], x[1000:], generator(1)), labels[1000:]
        )
        for reader in ("ridge", "mlp")
    )
    assert ridge < 0.1
    assert mlp > 0.7


def test_the_share_is_one_for_the_real_space_and_zero_for_a_random_one():
    assert usable_geometry(0.9, random=0.2, real=0.9) == 1
    assert usable_geometry(0.2, random=0.2, real=0.9) == 0
    assert math.isnan(usable_geometry(0.2, random=0.5, real=0.5))
    assert superposition_suffices(0.96)
    assert not superposition_suffices(0.94)


def test_performance_is_r_squared_and_not_below_zero():
    labels = torch.tensor([[0.0], [2.0]])
    assert performance(labels, labels) == 1
    assert performance(torch.ones(2, 1), labels) == 0
    assert performance(-labels, labels) == 0
    with pytest.raises(ValueRangeError, match="Labels must vary; got 3 rows"):
        performance(torch.ones(3, 1), torch.ones(3, 1))


def test_rows_without_labels_are_refused():
    with pytest.raises(ShapeError, match="got 3 rows and 2 labels"):
        predictions("ridge", torch.ones(3, 2), torch.ones(2, 1), torch.ones(1, 2), generator(0))
