"""Pursuits, against their definitions for one input at a time, and where they must be exact."""

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.pursuit import (
    gradient_pursuit,
    matching_pursuit,
    orthogonal_matching_pursuit,
)

seeds = st.integers(0, 2**32)
signs = pytest.mark.parametrize("non_negative", [False, True])
PURSUITS = (matching_pursuit, orthogonal_matching_pursuit, gradient_pursuit)
pursuits = pytest.mark.parametrize("pursuit", PURSUITS)


def problem(seed, n=10, width=40, d=12, dtype=torch.float64):
    """Inputs and atoms of unequal lengths."""
    source = generator(seed)
    atoms = torch.randn(width, d, generator=source, dtype=dtype)
    return torch.randn(n, d, generator=source, dtype=dtype), atoms


def errors(x, atoms, codes):
    return (x - codes.dense() @ atoms).square().sum(1)


# The definitions, slowly.


def slow_matching(x, atoms, k, non_negative):
    z, residual = np.zeros(len(atoms)), x.copy()
    for _ in range(k):
        correlations = atoms @ residual
        best = np.argmax(correlations if non_negative else np.abs(correlations))
        if non_negative and correlations[best] <= 0:
            break
        z[best] += correlations[best]
        residual -= correlations[best] * atoms[best]
    return z


def slow_orthogonal(x, atoms, k, non_negative):
    z, support = np.zeros(len(atoms)), []
    for _ in range(k):
        correlations = atoms @ (x - z @ atoms)
        best = np.argmax(correlations if non_negative else np.abs(correlations))
        if non_negative and correlations[best] <= 1e-12:
            break
        support.append(best)
        if non_negative:
            z[support] = scipy.optimize.nnls(atoms[support].T, x)[0]
        else:
            z[support] = np.linalg.lstsq(atoms[support].T, x, rcond=None)[0]
    return z


def slow_gradient(x, atoms, k, non_negative):
    z, support = np.zeros(len(atoms)), set()
    for _ in range(k):
        residual = x - z @ atoms
        correlations = atoms @ residual
        best = np.argmax(correlations if non_negative else np.abs(correlations))
        if non_negative and correlations[best] <= 0:
            break
        support.add(best)
        g = np.zeros_like(z)
        g[list(support)] = correlations[list(support)]
        if non_negative:
            g[(z == 0) & (g < 0)] = 0
        change = (residual @ (g @ atoms)) / np.square(g @ atoms).sum() * g
        if non_negative:
            change = np.maximum(z + change, 0) - z
            shift = change @ atoms
            change *= np.clip(residual @ shift / np.square(shift).sum(), 0, 1)
        z = z + change
    return z


SLOW = {
    matching_pursuit: slow_matching,
    orthogonal_matching_pursuit: slow_orthogonal,
    gradient_pursuit: slow_gradient,
}


@pursuits
@signs
@settings(max_examples=10)
@given(seed=seeds, k=st.integers(1, 12))
def test_codes_are_those_of_the_definition(pursuit, non_negative, seed, k):
    x, atoms = problem(seed, n=4)
    lengths = atoms.norm(dim=1)
    found = pursuit(x, atoms, k, non_negative=non_negative)
    unit = normalize(atoms, dim=1).numpy()
    slow = np.stack([SLOW[pursuit](row.numpy(), unit, k, non_negative) for row in x])
    expected = torch.from_numpy(slow) / lengths
    torch.testing.assert_close(found.dense(), expected, rtol=1e-6, atol=1e-7)


@given(seeds, st.integers(1, 12))
def test_orthogonal_matching_pursuit_is_that_of_scikit_learn(seed, k):
    peer = pytest.importorskip("sklearn.linear_model")
    x, atoms = problem(seed)
    atoms = normalize(atoms, dim=1)
    expected = peer.orthogonal_mp(atoms.T.numpy(), x.T.numpy(), n_nonzero_coefs=k)
    found = orthogonal_matching_pursuit(x, atoms, k).dense()
    torch.testing.assert_close(found, torch.from_numpy(expected.T), rtol=1e-6, atol=1e-8)


@pursuits
@signs
def test_in_float32_the_error_is_that_in_float64(pursuit, non_negative):
    x, atoms = problem(0, n=200, width=100, d=40, dtype=torch.float32)
    single = pursuit(x, atoms, 8, non_negative=non_negative)
    double = pursuit(x.double(), atoms.double(), 8, non_negative=non_negative)
    assert single.values.dtype == torch.float32
    torch.testing.assert_close(
        errors(x, atoms, single).double(), errors(x.double(), atoms.double(), double),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


# Where codes are known.


def incoherent(seed, dtype, d=64):
    """A basis and its Hadamard transform: 2 d atoms of coherence 1/8, turned at random."""
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator(seed), dtype=torch.float64)).Q
    hadamard = torch.from_numpy(scipy.linalg.hadamard(d)).double() / d**0.5
    return torch.cat([basis, hadamard @ basis]).to(dtype)


def planted(seed, width, k, *, n=30, non_negative, dtype):
    """Codes of k atoms, with values that differ in size by up to a hundred."""
    source = generator(seed)
    places = torch.rand(n, width, generator=source).topk(k, dim=1).indices
    values = 10 ** (2 * torch.rand(n, k, generator=source, dtype=torch.float64) - 1)
    if not non_negative:
        values *= (torch.rand(n, k, generator=source) < 0.5).double() * 2 - 1
    return torch.zeros(n, width, dtype=torch.float64).scatter(1, places, values).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@signs
@settings(max_examples=15)
@given(seed=seeds)
def test_codes_sparser_than_the_coherence_bound_are_found_exactly(non_negative, dtype, seed):
    atoms = incoherent(seed, dtype)
    coherence = float((atoms @ atoms.T).fill_diagonal_(0).abs().max())
    k = int((1 + 1 / coherence) / 2 - 1e-3)
    assert k == 4
    codes = planted(seed + 1, len(atoms), k, non_negative=non_negative, dtype=dtype)
    found = orthogonal_matching_pursuit(codes @ atoms, atoms, k, non_negative=non_negative)
    torch.testing.assert_close(found.dense(), codes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pursuit", [matching_pursuit, gradient_pursuit])
@signs
@settings(max_examples=4)
@given(seed=seeds)
def test_under_the_bound_the_others_choose_only_planted_atoms(pursuit, non_negative, seed):
    atoms = incoherent(seed, torch.float64)
    codes = planted(seed + 1, 128, 4, non_negative=non_negative, dtype=torch.float64)
    x = codes @ atoms
    found = pursuit(x, atoms, 40, non_negative=False)
    assert not (found.dense()[codes == 0] != 0).any()
    assert (errors(x, atoms, found) < 1e-6 * x.square().sum(1)).all()


def test_beyond_the_bound_another_atom_may_be_taken():
    atoms = normalize(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.1]]), dim=1)
    found = orthogonal_matching_pursuit(torch.tensor([[1.0, 1.0, 0.0]]), atoms, 2)
    assert float(found.dense()[0, 2]) != 0  # coherence .71: only one atom is within the bound


@pursuits
@settings(max_examples=10)
@given(seed=seeds, k=st.integers(1, 12))
def test_over_an_orthonormal_basis_all_keep_the_largest_coordinates(pursuit, seed, k):
    x, square = problem(seed, width=12)
    basis = torch.linalg.qr(square).Q
    coordinates = x @ basis.T
    signed = pursuit(x, basis, k).dense()
    kept = coordinates.abs() >= coordinates.abs().topk(k).values[:, -1:]
    torch.testing.assert_close(signed, coordinates * kept, rtol=1e-9, atol=1e-9)
    positive = coordinates.relu()
    kept = positive >= positive.topk(k).values[:, -1:]
    found = pursuit(x, basis, k, non_negative=True).dense()
    torch.testing.assert_close(found, positive * kept, rtol=1e-9, atol=1e-9)


# What holds of all.


@pursuits
@signs
@settings(max_examples=4)
@given(seed=seeds)
def test_the_error_falls_with_k_and_no_code_has_more_than_k_atoms(pursuit, non_negative, seed):
    x, atoms = problem(seed)
    before = x.square().sum(1)
    for k in range(1, 13):
        codes = pursuit(x, atoms, k, non_negative=non_negative)
        assert codes.l0().max() <= k
        assert not (non_negative and (codes.values < 0).any())
        # Every value has a place of its own in the dense codes.
        assert torch.equal((codes.dense() != 0).sum(1).float(), codes.l0())
        after = errors(x, atoms, codes)
        assert (after <= before + 1e-9).all()
        before = after


@given(seed=seeds, k=st.integers(1, 11))
def test_after_orthogonal_matching_pursuit_no_chosen_atom_correlates(seed, k):
    x, atoms = problem(seed)
    codes = orthogonal_matching_pursuit(x, atoms, k)
    residual = x - codes.dense() @ atoms
    assert (residual @ normalize(atoms, dim=1).T).gather(1, codes.indices).abs().max() < 1e-8


def test_as_many_atoms_as_dimensions_leave_nothing():
    x, atoms = problem(4, dtype=torch.float32)
    codes = orthogonal_matching_pursuit(x, atoms, 12)
    assert errors(x, atoms, codes).max() < 1e-6


@pursuits
@signs
def test_codes_do_not_depend_on_the_batch(pursuit, non_negative, monkeypatch):
    x, atoms = problem(5, n=100)
    whole = pursuit(x, atoms, 5, non_negative=non_negative).dense()
    monkeypatch.setattr("modelassay.decompositions.pursuit.CHUNK_ENTRIES", 1000)
    parts = pursuit(x, atoms, 5, non_negative=non_negative).dense()
    torch.testing.assert_close(whole, parts, rtol=1e-9, atol=1e-9)


@pursuits
@signs
def test_longer_atoms_have_smaller_values_and_are_chosen_alike(pursuit, non_negative):
    x, atoms = problem(6)
    scale = 10 ** (4 * torch.rand(len(atoms), 1, generator=generator(7), dtype=x.dtype) - 2)
    plain = pursuit(x, atoms, 5, non_negative=non_negative).dense()
    scaled = pursuit(x, atoms * scale, 5, non_negative=non_negative).dense()
    torch.testing.assert_close(scaled * scale.T, plain, rtol=1e-6, atol=1e-8)


@pursuits
@signs
def test_zeros_twins_and_empty_batches_are_no_trouble(pursuit, non_negative):
    atoms = torch.cat([torch.eye(4), torch.eye(4), torch.zeros(1, 4)])
    x = torch.tensor([[0.0, 0, 0, 0], [1, 2, 0, 0], [-1, -2, -3, -4]])
    codes = pursuit(x, atoms, 4, non_negative=non_negative)
    expected = torch.tensor([0.0, 2.0, 0.0 if non_negative else 4.0])
    assert torch.equal(codes.l0(), expected)
    torch.testing.assert_close(codes.dense() @ atoms, x.relu() if non_negative else x)
    assert pursuit(x[:0], atoms, 4, non_negative=non_negative).indices.shape == (0, 4)


@pursuits
@signs
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_finds_the_same(pursuit, non_negative):
    x, atoms = problem(8, n=50)
    there = pursuit(x.cuda(), atoms.cuda(), 6, non_negative=non_negative)
    assert there.values.is_cuda
    here = pursuit(x, atoms, 6, non_negative=non_negative)
    torch.testing.assert_close(there.dense().cpu(), here.dense(), rtol=1e-6, atol=1e-8)


# What is refused.


@pursuits
@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "number of .*; got 0. Choose at least one"),
        (-2, "number of .*; got -2. Choose at least one"),
        (41, "number of .*; got 41. Choose fewer active atoms"),
    ],
)
def test_k_out_of_range_is_refused(pursuit, k, message):
    with pytest.raises(ValueRangeError, match=message):
        pursuit(*problem(0), k)


def test_only_orthogonal_matching_pursuit_is_bounded_by_the_dimensions():
    x, atoms = problem(0)
    with pytest.raises(ValueRangeError, match="1 and the number of dimensions, 12; got 13"):
        orthogonal_matching_pursuit(x, atoms, 13)
    with pytest.raises(ValueRangeError, match="1 and the number of atoms, 5; got 6"):
        orthogonal_matching_pursuit(x, atoms[:5], 6)
    assert matching_pursuit(x, atoms, 13).values.shape == (10, 13)
    assert gradient_pursuit(x, atoms, 13).values.shape == (10, 13)


@pursuits
def test_what_is_not_finite_or_not_of_one_width_is_refused(pursuit):
    x, atoms = problem(0)
    with pytest.raises(ShapeError, match=r"\[token, 12\]; got \[10, 11\]"):
        pursuit(x[:, :11], atoms, 2)
    x[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="Inputs must be finite; got NaN or Inf in row 3"):
        pursuit(x, atoms, 2)
    atoms[5, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="Atoms must be finite; got NaN or Inf in row 5"):
        pursuit(x.nan_to_num(), atoms, 2)
