"""Bags, their rows, and slots."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.decompositions.bags import (
    join_bags,
    offsets_of,
    offsets_of_slots,
    pad_bags,
    rows_of,
)


@given(st.lists(st.integers(0, 4), max_size=8))
def test_rows_and_offsets_are_inverse(lengths):
    rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.long))
    offsets = offsets_of(rows, len(lengths))
    assert offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths))]
    assert rows_of(offsets, len(rows)).tolist() == rows.tolist()


def test_padding_fills_short_bags_with_zeros():
    values, indices = pad_bags(
        torch.tensor([5.0, 6.0, 7.0]), torch.tensor([2, 4, 3]), torch.tensor([0, 2, 2])
    )
    assert values.tolist() == [[5, 6], [0, 0], [7, 0]]
    assert indices.tolist() == [[2, 4], [0, 0], [3, 0]]


def test_slots_are_bags_of_equal_length():
    offsets = offsets_of_slots(torch.zeros(3, 2, dtype=torch.long))
    assert offsets.tolist() == [0, 2, 4]
    assert rows_of(offsets, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_joined_bags_keep_their_tokens():
    first = (torch.tensor([5.0, 6.0]), torch.tensor([2, 4]), torch.tensor([0, 2]))
    second = (torch.tensor([7.0]), torch.tensor([3]), torch.tensor([0]))
    nothing = (torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.tensor([0]))
    values, indices, offsets = join_bags([first, nothing, second])
    assert values.tolist() == [5, 6, 7]
    assert indices.tolist() == [2, 4, 3]
    assert rows_of(offsets, 3).tolist() == [0, 0, 3]
