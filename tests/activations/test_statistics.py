"""Moments: numpy's definition, any split into batches, hard numerics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.activations.statistics import Moments
from modelassay.core.errors import ShapeError


def rows(n: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator) * torch.arange(1, width + 1) + 3


def assert_moments(moments: Moments, x: torch.Tensor) -> None:
    values = x.double().numpy()
    assert moments.count == len(values)
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12, atol=1e-12)
    covariance = np.atleast_2d(np.cov(values.T, bias=True))
    np.testing.assert_allclose(moments.covariance, covariance, rtol=1e-10, atol=1e-10)
    norms = np.linalg.norm(values, axis=1)
    assert moments.mean_norm == pytest.approx(norms.mean(), rel=1e-12)
    assert moments.mean_squared_norm == pytest.approx((norms**2).mean(), rel=1e-12)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 6), st.integers(0, 2**30)
)
def test_any_split_into_batches_gives_numpys_moments(
    sizes: list[int], width: int, seed: int
) -> None:
    x = rows(sum(sizes) + 1, width, seed)
    total = Moments.zero(width)
    for piece in x.split([*sizes, 1]):
        total = total + Moments.of(piece)
    assert_moments(total, x)


@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.integers(0, 2**30))
def test_adding_is_commutative_and_associative(sizes: list[int], seed: int) -> None:
    a, b, c = map(Moments.of, rows(sum(sizes), 4, seed).split(sizes))
    for left, right in ((a + b, b + a), ((a + b) + c, a + (b + c))):
        torch.testing.assert_close(left.mean, right.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(left.covariance, right.covariance, rtol=1e-10, atol=1e-10)
        assert left.mean_norm == pytest.approx(right.mean_norm, rel=1e-12)


def test_a_large_mean_does_not_cancel_the_variance() -> None:
    # E[x^2] - E[x]^2 in float64 would be off by 1e16 * 2e-16 = 2 here, as large as the variance.
    x = rows(1000, 2, 0).double() + 1e8
    total = Moments.zero(2)
    for piece in x.split(100):
        total = total + Moments.of(piece)
    np.testing.assert_allclose(total.covariance, np.cov(x.numpy().T, bias=True), rtol=1e-6)


def test_half_precision_is_summed_in_double() -> None:
    x = rows(5000, 3, 1).half()
    assert_moments(Moments.of(x), x)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ShapeError, match="must have one width; got 2 and 3"):
        Moments.zero(2) + Moments.zero(3)
