"""Nearest directions: slow definition, planted neighbours, and the null."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.geometry.neighbours import nearest_neighbours


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 6), st.integers(1, 14))
def test_matches_the_definition(seed, n, d, count):
    directions = torch.randn(n, d, generator=generator(seed))
    found = nearest_neighbours(directions, generator(0), count=count)
    wide = directions.double()
    for i in range(n):
        cosines = {
            j: float(wide[i] @ wide[j] / wide[i].norm() / wide[j].norm())
            for j in range(n)
            if j != i
        }
        ranked = sorted(cosines.values(), reverse=True)[:count]
        assert found.cosines[i].tolist() == pytest.approx(ranked, abs=1e-5)
        for j, cosine in zip(found.indices[i].tolist(), found.cosines[i].tolist(), strict=True):
            assert cosines[j] == pytest.approx(cosine, abs=1e-5)


def test_length_does_not_matter_and_blocks_do_not_show():
    directions = torch.randn(2500, 8, generator=generator(0))
    lengths = torch.rand(2500, 1, generator=generator(1)) + 0.1
    one = nearest_neighbours(directions, generator(2))
    other = nearest_neighbours(directions * lengths, generator(2))
    torch.testing.assert_close(one.cosines, other.cosines, atol=1e-5, rtol=0)
    # A later block's rows find themselves no more than the first block's do.
    assert (one.indices != torch.arange(2500)[:, None]).all()


def test_random_directions_lie_at_the_null_and_copies_above_it():
    directions = torch.randn(1000, 32, generator=generator(0))
    directions[1] = directions[0] + 0.05 * directions[2]
    found = nearest_neighbours(directions, generator(1))
    assert found.indices[0, 0] == 1
    assert found.cosines[0, 0] > 0.99 > found.null_highest > found.null
    rest = found.cosines[3:, 0]
    assert float(rest.median()) == pytest.approx(found.null, abs=0.02)
    assert float((rest > found.null_highest).float().mean()) < 0.01


def test_directions_of_zeros_have_cosine_zero():
    directions = torch.eye(4)
    directions[0] = 0
    found = nearest_neighbours(directions, generator(0), count=3)
    assert (found.cosines == 0).all()


def test_one_direction_is_refused():
    with pytest.raises(ValueRangeError, match="at least 2 directions; got 1"):
        nearest_neighbours(torch.ones(1, 4), generator(0))
