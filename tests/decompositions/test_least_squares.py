"""Least squares on chosen atoms, against solvers of single tokens."""

import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from modelassay.core.errors import NonFiniteError, ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.least_squares import (
    nonnegative_least_squares,
    normal_equations,
    refit_values,
)

seeds = st.integers(0, 2**32)


def problem(seed, n=12, width=40, d=16, k=6, *, coherent=0.0, dtype=torch.float64):
    """Inputs, atoms that share a direction, and a support of k atoms for every input."""
    source = generator(seed)
    atoms = torch.randn(width, d, generator=source, dtype=dtype)
    atoms = normalize(atoms + coherent * atoms[:1], dim=1)
    x = torch.randn(n, d, generator=source, dtype=dtype)
    indices = torch.rand(n, width, generator=source).topk(k, dim=1).indices
    values = torch.ones(n, k, dtype=dtype)
    return x, atoms, Codes(indices=indices, values=values, width=width)


def errors(x, atoms, codes):
    return (x - codes.dense() @ atoms).square().sum(1)


@given(seeds, st.sampled_from([0.0, 3.0]))
def test_values_are_those_of_a_dense_solver(seed, coherent):
    x, atoms, codes = problem(seed, coherent=coherent)
    found = refit_values(codes, x, atoms)
    for row, chosen, values in zip(x, codes.indices, found.values, strict=True):
        expected = torch.linalg.lstsq(atoms[chosen].T, row.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-8)


@given(seeds, st.sampled_from([0.0, 1.0, 3.0]), st.integers(1, 14))
def test_non_negative_values_are_those_of_scipy(seed, coherent, k):
    x, atoms, codes = problem(seed, k=k, coherent=coherent)
    found = refit_values(codes, x, atoms, non_negative=True)
    for row, chosen, values in zip(x, codes.indices, found.values, strict=True):
        expected, _ = scipy.optimize.nnls(atoms[chosen].T.numpy(), row.numpy())
        torch.testing.assert_close(values, torch.from_numpy(expected), rtol=1e-6, atol=1e-8)


@given(seeds)
def test_in_float32_the_values_are_nearly_those_in_float64(seed):
    x, atoms, codes = problem(seed, dtype=torch.float32)
    for non_negative in (False, True):
        found = refit_values(codes, x, atoms, non_negative=non_negative).values
        assert found.dtype == torch.float32
        exact = refit_values(codes, x.double(), atoms.double(), non_negative=non_negative).values
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@given(seeds)
def test_a_support_larger_than_the_space_meets_the_conditions_of_the_minimum(seed):
    x, atoms, codes = problem(seed, d=5, k=12)
    found = refit_values(codes, x, atoms, non_negative=True)
    gradient = ((x - found.dense() @ atoms) @ atoms.T).gather(1, codes.indices)
    assert found.values.min() >= 0
    assert gradient.max() < 1e-8
    assert gradient[found.active()].abs().max() < 1e-8


def test_a_start_changes_nothing_but_the_way():
    x, atoms, codes = problem(0, k=8)
    gram, moment = normal_equations(codes.indices, codes.active(), x, atoms)
    start = moment.new_zeros(moment.shape)
    start[:, :7] = nonnegative_least_squares(gram[:, :7, :7], moment[:, :7])
    warm = nonnegative_least_squares(gram, moment, start)
    torch.testing.assert_close(warm, nonnegative_least_squares(gram, moment))


@pytest.mark.parametrize("non_negative", [False, True])
def test_the_error_is_at_most_that_of_the_codes_given(non_negative):
    x, atoms, codes = problem(1)
    given_codes = Codes(
        indices=codes.indices,
        values=((x @ atoms.T).gather(1, codes.indices) / 2).clamp(min=0),
        width=codes.width,
    )
    found = refit_values(given_codes, x, atoms, non_negative=non_negative)
    assert (errors(x, atoms, found) <= errors(x, atoms, given_codes) + 1e-12).all()
    assert not (found.active() & ~given_codes.active()).any()


def test_twin_atoms_share_a_value_and_empty_codes_stay_empty():
    atoms = torch.eye(3).repeat(2, 1)
    x = torch.tensor([[2.0, 1.0, 0.0]])
    codes = Codes(indices=torch.tensor([[0, 3, 1]]), values=torch.ones(1, 3), width=6)
    for non_negative in (False, True):
        found = refit_values(codes, x, atoms, non_negative=non_negative)
        torch.testing.assert_close(found.dense() @ atoms, x)
    none = Codes(indices=torch.zeros(1, 0, dtype=torch.long), values=torch.zeros(1, 0), width=6)
    assert refit_values(none, x, atoms, non_negative=True).values.shape == (1, 0)
    assert refit_values(none[:0], x[:0], atoms).values.shape == (0, 0)


def test_what_does_not_fit_is_refused():
    x, atoms, codes = problem(0)
    with pytest.raises(ShapeError, match=r"of 11 tokens and 40 latents, .* got 12 and 40"):
        refit_values(codes, x[:11], atoms)
    with pytest.raises(ShapeError, match=r"\[token, 16\]; got \[12, 15\]"):
        refit_values(codes, x[:, :15], atoms)
    atoms[7, 3] = torch.inf
    with pytest.raises(NonFiniteError, match="Atoms must be finite; got NaN or Inf in row 7"):
        refit_values(codes, x, atoms)
