"""Triples: slow definition, planted planes, the guarantee, and what chance gives."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.geometry.triples import find_triples, plane_fit


def determinant_residual(unit: torch.Tensor, i: int, j: int, k: int) -> float:
    """det G(i, j, k) / det G(i, j)."""
    rows = unit[[i, j, k]]
    gram = rows @ rows.T
    return math.sqrt(max(0.0, float(gram.det() / gram[:2, :2].det())))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(3, 11), st.integers(3, 6))
def test_matches_the_definition_when_all_are_candidates(seed, n, d):
    directions = torch.randn(n, d, generator=generator(seed))
    found = find_triples(directions, neighbours=n)
    unit = functional.normalize(directions.double(), dim=1)
    for k in range(n):
        others = [i for i in range(n) if i != k]
        best = min(
            determinant_residual(unit, i, j, k) for i, j in itertools.combinations(others, 2)
        )
        assert float(found.residuals[k]) == pytest.approx(best, abs=1e-4)
        i, j = found.members[k].tolist()
        assert len({i, j, k}) == 3
        beta = found.coefficients[k].double()
        rest = unit[k] - beta[0] * unit[i] - beta[1] * unit[j]
        assert float(rest.norm()) == pytest.approx(best, abs=1e-4)
        assert abs(float(rest @ unit[i])) < 1e-5


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0, -0.5])
def test_a_planted_triple_is_found_with_its_alpha(alpha):
    directions = functional.normalize(torch.randn(300, 32, generator=generator(1)), dim=1)
    directions[2] = 7 * (directions[1] - alpha * directions[0])
    found = find_triples(directions)
    assert set(found.members[2].tolist()) == {0, 1}
    assert float(found.residuals[:3].max()) < 1e-6 < float(found.residuals[3:].min())
    # Ordered by the larger coefficient: alpha for alpha > 0, else of f1 and f2 either.
    expected = {alpha, 1 / alpha} if alpha < 0 else {alpha}
    assert min(abs(float(found.alphas[2]) - each) for each in expected) < 1e-5


def test_the_worked_example_comes_out():
    f1, f2 = torch.eye(64)[:2]
    f3 = (f2 - 3 * f1) / math.sqrt(10)
    coefficients, residual = plane_fit(f3[None], f1[None], f2[None])
    assert float(residual) == pytest.approx(0, abs=1e-6)
    assert float(f2 @ f3) == pytest.approx(0.316, abs=5e-4)
    assert float(f1 @ f3) == pytest.approx(-0.949, abs=5e-4)
    assert float(-coefficients[0, 0] / coefficients[0, 1]) == pytest.approx(3, abs=1e-5)


def test_few_neighbours_miss_no_near_triple():
    directions = functional.normalize(torch.randn(400, 24, generator=generator(2)), dim=1)
    noise = 0.3 * functional.normalize(torch.randn(40, 24, generator=generator(3)), dim=1)
    directions[80:120] = directions[:40] - directions[40:80] + noise
    few, all_ = find_triples(directions), find_triples(directions, neighbours=399)
    near = all_.residuals < 0.4
    assert int(near.sum()) >= 100  # mostly the three members of forty planted planes
    torch.testing.assert_close(few.residuals[near], all_.residuals[near], atol=1e-5, rtol=0)


def test_random_directions_lie_where_chance_puts_them():
    residuals = find_triples(torch.randn(1024, 64, generator=generator(0))).residuals
    assert float(residuals.median()) == pytest.approx(0.833, abs=0.005)
    assert float(residuals.quantile(0.01)) == pytest.approx(0.765, abs=0.015)


def test_blocks_and_lengths_do_not_show(monkeypatch):
    directions = torch.randn(200, 8, generator=generator(0))
    one = find_triples(directions)
    monkeypatch.setattr("modelassay.geometry.triples._BLOCK_ENTRIES", 5000)
    monkeypatch.setattr("modelassay.geometry.triples._GRAM_ENTRIES", 10)
    other = find_triples(directions * (0.1 + torch.rand(200, 1, generator=generator(1))))
    torch.testing.assert_close(one.residuals, other.residuals, atol=1e-5, rtol=0)


def test_zeros_and_copies_are_no_trap():
    directions = torch.eye(5)
    directions[4] = 0
    directions[3] = directions[2]
    found = find_triples(directions)
    assert found.residuals.tolist() == pytest.approx([1, 1, 0, 0, 1], abs=1e-6)
    assert bool(found.coefficients.isfinite().all())


def test_no_alpha_where_both_coefficients_are_negative():
    angles = torch.tensor([0.0, 120, 240]).deg2rad()
    found = find_triples(torch.stack([angles.cos(), angles.sin()], 1))
    assert bool(found.alphas.isnan().all())


def test_too_little_is_refused():
    with pytest.raises(ValueRangeError, match="at least 3 directions; got 2"):
        find_triples(torch.eye(2))
    with pytest.raises(ValueRangeError, match="neighbours must be at least 1; got 0"):
        find_triples(torch.eye(4), neighbours=0)
