"""Sparse codes against the dense matrix they stand for."""

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes, concatenate

seeds = st.integers(0, 2**32)


def dense_matrix(seed, n_tokens, width):
    """Signed values, two thirds of them zero."""
    source = generator(seed)
    values = torch.randn(n_tokens, width, generator=source)
    return values * (torch.rand(n_tokens, width, generator=source) < 1 / 3)


@given(seeds, st.integers(0, 6), st.sampled_from([1, 5, 16, 48]))
def test_dense_is_the_inverse_of_from_dense(seed, n_tokens, width):
    dense = dense_matrix(seed, n_tokens, width)
    assert torch.equal(Codes.from_dense(dense).dense(), dense)


@given(seeds, st.integers(0, 6), st.sampled_from([1, 5, 16, 48]))
def test_counts_are_those_of_the_dense_matrix(seed, n_tokens, width):
    dense = dense_matrix(seed, n_tokens, width)
    codes = Codes.from_dense(dense)
    assert codes.n_tokens == n_tokens
    assert torch.equal(codes.l0(), (dense != 0).sum(1).float())
    assert torch.equal(codes.firing_counts(), (dense != 0).sum(0))
    assert int(codes.active().sum()) == int((dense != 0).sum())


@given(seeds, st.integers(0, 6), st.sampled_from([1, 5, 16, 48]))
def test_scipy_has_the_same_matrix_and_no_explicit_zeros(seed, n_tokens, width):
    dense = dense_matrix(seed, n_tokens, width)
    matrix = Codes.from_dense(dense).to_scipy()
    assert matrix.shape == (n_tokens, width)
    assert matrix.nnz == int((dense != 0).sum())
    assert torch.equal(torch.from_numpy(matrix.toarray()), dense)


def test_the_index_of_an_empty_slot_is_ignored():
    codes = Codes(
        indices=torch.tensor([[2, 2, 0]]), values=torch.tensor([[3.0, 0.0, 0.0]]), width=4
    )
    assert codes.dense().tolist() == [[0, 0, 3, 0]]
    assert codes.firing_counts().tolist() == [0, 0, 1, 0]
    assert codes.to_scipy().nnz == 1


@given(seeds, st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_concatenation_stacks_runs_of_different_slots(seed, lengths):
    dense = dense_matrix(seed, sum(lengths), 9)
    parts = [Codes.from_dense(part) for part in dense.split(lengths)]
    assert torch.equal(concatenate(parts).dense(), dense)


def test_rows_are_selected_by_slice_index_and_mask():
    dense = dense_matrix(0, 5, 7)
    codes = Codes.from_dense(dense)
    for rows in (slice(1, 3), torch.tensor([4, 0]), dense[:, 0] > 0):
        assert torch.equal(codes[rows].dense(), dense[rows])


def test_gradients_reach_the_values():
    values = torch.ones(2, 1, requires_grad=True)
    Codes(indices=torch.tensor([[1], [0]]), values=values, width=2).dense()[0].sum().backward()
    assert values.grad.tolist() == [[1], [0]]


def test_indices_and_values_of_different_shapes_are_refused(monkeypatch):
    # Users run without the shape checks of the tests: there the message is ours.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ShapeError, match=r"the same shape .*; got \[2, 3\] and \[2, 2\]"):
        Codes(indices=torch.zeros(2, 3, dtype=torch.long), values=torch.zeros(2, 2), width=4)


def test_codes_of_different_widths_do_not_join():
    codes = Codes.from_dense(torch.eye(2))
    with pytest.raises(ShapeError, match=r"one width, and at least one; got widths \[2, 3\]"):
        concatenate([codes, Codes.from_dense(torch.eye(3))])
    with pytest.raises(ShapeError, match=r"got widths \[\]"):
        concatenate([])


@given(seeds, st.integers(0, 6), st.lists(st.integers(0, 15), unique=True))
def test_only_silences_all_other_latents(seed, n_tokens, kept):
    dense = dense_matrix(seed, n_tokens, 16)
    expected = torch.zeros_like(dense)
    expected[:, kept] = dense[:, kept]
    chosen = torch.tensor(kept, dtype=torch.int64)
    assert torch.equal(Codes.from_dense(dense).only(chosen).dense(), expected)
