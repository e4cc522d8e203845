"""Sizes of nested dictionaries that are drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.fitting.random_prefixes import draw_prefixes


@given(st.integers(2, 5000), st.integers(1, 20), st.integers(0, 2**32))
def test_they_ascend_to_the_width(width: int, number: int, seed: int):
    prefixes = draw_prefixes(width, number, generator(seed))
    assert len(prefixes) == number
    assert list(prefixes) == sorted(prefixes)
    assert prefixes[0] >= 1
    assert prefixes[-1] == width
    assert all(prefix < width for prefix in prefixes[:-1])


def test_they_follow_the_law():
    width, draws = 10_000, 200_000
    sizes = torch.tensor(draw_prefixes(width, draws + 1, generator(0))[:-1]).double()
    # P(m >= n) = n^(-1/2) without what lies beyond the width.
    for n in (2, 10, 100, 1000):
        beyond = width**-0.5
        expected = (n**-0.5 - beyond) / (1 - beyond)
        assert float((sizes >= n).double().mean()) == pytest.approx(expected, abs=0.004)


def test_one_generator_draws_one_list():
    assert draw_prefixes(100, 9, generator(1)) == draw_prefixes(100, 9, generator(1))
    assert draw_prefixes(100, 9, generator(1)) != draw_prefixes(100, 9, generator(2))


def test_a_width_without_room_is_refused():
    with pytest.raises(ValueRangeError, match=r"width must be at least 2.*got 1 and 3"):
        draw_prefixes(1, 3, generator(0))
