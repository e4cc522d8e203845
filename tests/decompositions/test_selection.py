"""Exact selection against sorting, on values with many ties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.decompositions.selection import (
    above,
    batch_topk,
    guess_bound,
    keep_largest,
    rows_of,
    topk,
)

seeds = st.integers(0, 2**32)
# 1, 7 and 40 have no groups; 16 to 512 go through one stage or two, depending on k.
widths = st.sampled_from([1, 7, 16, 40, 64, 256, 512])


def matrix(seed, n_tokens, width, levels=None):
    """Random values; with `levels`, only so many different ones, so that ties abound."""
    values = torch.randn(n_tokens, width, generator=generator(seed), dtype=torch.float64)
    return values if levels is None else (values * levels).round() / levels


@given(seeds, st.integers(0, 9), widths, st.integers(1, 40), st.sampled_from([None, 1, 4]))
def test_topk_takes_the_largest_of_every_row(seed, n_tokens, width, k, levels):
    pre = matrix(seed, n_tokens, width, levels)
    values, indices = topk(pre, k)
    assert values.shape == indices.shape == (n_tokens, min(k, width))
    for row in range(n_tokens):
        best = sorted(pre[row].tolist(), reverse=True)[:k]
        assert sorted(values[row].tolist(), reverse=True) == best
        assert pre[row, indices[row]].tolist() == values[row].tolist()
        assert len(set(indices[row].tolist())) == min(k, width)


def test_topk_finds_winners_that_share_one_group():
    pre = torch.zeros(1, 512)
    pre[0, 3::32] = torch.arange(1.0, 17.0)  # all sixteen are in the group of column 3
    assert sorted(topk(pre, 8)[0][0].tolist()) == list(range(9, 17))


@given(seeds, st.integers(0, 9), widths, st.floats(-3, 3), st.sampled_from([None, 2]))
def test_above_finds_all_that_is_greater(seed, n_tokens, width, bound, levels):
    pre = matrix(seed, n_tokens, width, levels)
    values, indices, offsets = above(pre, bound)
    rows = rows_of(offsets, values.numel())
    found = sorted(zip(rows.tolist(), indices.tolist(), values.tolist(), strict=True))
    assert found == [
        (row, column, float(pre[row, column]))
        for row in range(n_tokens)
        for column in range(width)
        if pre[row, column] > bound
    ]
    assert rows.tolist() == sorted(rows.tolist())


def test_above_takes_one_bound_per_column():
    pre = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    values, indices, offsets = above(pre, torch.tensor([2.0, 1.0, 3.0]))
    assert (values.tolist(), indices.tolist(), offsets.tolist()) == ([2, 3, 2], [1, 0, 1], [0, 1])


@given(seeds, st.integers(0, 9), widths, st.integers(1, 40), st.sampled_from([None, 1, 4]))
def test_batch_topk_takes_the_largest_positive_of_the_batch(seed, n_tokens, width, k, levels):
    pre = matrix(seed, n_tokens, width, levels)
    values, indices, offsets = batch_topk(pre, k)
    positive = sorted((v for v in pre.flatten().tolist() if v > 0), reverse=True)
    assert sorted(values.tolist(), reverse=True) == positive[: k * n_tokens]
    rows = rows_of(offsets, values.numel())
    assert pre[rows, indices].tolist() == values.tolist()
    assert len(set(zip(rows.tolist(), indices.tolist(), strict=True))) == values.numel()


def test_batch_topk_is_exact_when_the_sample_misleads():
    # The sample takes every third entry: it sees only the large ones, and guesses too high.
    pre = torch.rand(500, 512, generator=generator(0)) + 0.1
    stride = pre.numel() // 2**16 | 1
    pre.flatten()[::stride] += 100
    k = 300
    assert (pre > guess_bound(pre, k)).sum() < k * 500
    values, _, _ = batch_topk(pre, k)
    assert values.sum().item() == pytest.approx(pre.flatten().topk(k * 500).values.sum().item())


def test_the_guess_lets_a_little_more_than_k_pass():
    pre = torch.randn(2048, 512, generator=generator(1))
    passing = (pre > guess_bound(pre, 8)).sum() / 2048
    assert 8 <= passing < 12


@given(seeds, st.integers(1, 9), st.integers(0, 30))
def test_keep_largest_keeps_the_bags_apart(seed, n_tokens, count):
    pre = matrix(seed, n_tokens, 20)
    bags = above(pre, 0.5)
    values, indices, offsets = keep_largest(*bags, count=count)
    assert sorted(values.tolist()) == sorted(bags[0].tolist(), reverse=True)[:count][::-1]
    assert pre[rows_of(offsets, values.numel()), indices].tolist() == values.tolist()
