"""Orthogonal matching pursuit as a sparsifier, against its definition and the graph of it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.inference_time import Pursuit
from modelassay.decompositions.orthogonal_pursuit import OrthogonalPursuitActivation
from modelassay.decompositions.pursuit import matching_pursuit
from modelassay.decompositions.recipes import OrthogonalMatchingPursuit
from modelassay.decompositions.storage import load_decomposition

D, WIDTH, K, TOKENS = 6, 20, 5, 20
seeds = st.integers(0, 2**32)


def drawn(seed: int, *, k: int = K) -> tuple[Dictionary, Tensor]:
    """An untrained dictionary with a bias, and activations."""
    draw = generator(seed)
    dictionary = OrthogonalMatchingPursuit(width=WIDTH, k=k).build(
        D, D, torch.randn(D, generator=draw), draw, None
    )
    return dictionary.double(), torch.randn(TOKENS, D, generator=draw, dtype=torch.float64)


def batch_of(dictionary: Dictionary, x: Tensor, **others: Any) -> EncoderBatch:
    weights: dict[str, Any] = {
        "x": x,
        "W_enc": dictionary.W_enc,
        "b_enc": dictionary.b_enc,
        "centre": dictionary.b_dec,
        "W_dec": dictionary.W_dec,
    }
    return EncoderBatch(**(weights | others))


def by_definition(x: np.ndarray, atoms: np.ndarray, k: int) -> np.ndarray:
    """One token: the best correlation joins, and SciPy solves on all that joined."""
    z, support = np.zeros(len(atoms)), []
    for _ in range(k):
        correlations = atoms @ (x - z @ atoms)
        best = int(np.argmax(correlations))
        if correlations[best] <= 1e-12:
            break
        support.append(best)
        z[support] = scipy.optimize.nnls(atoms[support].T, x)[0]
    return z


@settings(max_examples=20)
@given(seed=seeds, k=st.integers(1, D))
def test_codes_are_those_of_the_definition_and_of_the_pursuit_at_inference_time(seed: int, k: int):
    dictionary, x = drawn(seed, k=k)
    found = dictionary.encode(x).dense()
    slow = [
        by_definition(row.numpy(), dictionary.directions.numpy(), k) for row in x - dictionary.bias
    ]
    torch.testing.assert_close(found, torch.from_numpy(np.stack(slow)), atol=1e-8, rtol=1e-7)
    optimised = Pursuit(dictionary, k=k, method="omp").encode(x).dense()
    torch.testing.assert_close(found, optimised, atol=1e-8, rtol=1e-7)
    trained = dictionary.activation.encode(batch_of(dictionary, x, buffer=x.new_empty(7, WIDTH)))
    eye = torch.eye(WIDTH, dtype=torch.float64)
    torch.testing.assert_close(trained.decode(eye), found, atol=1e-9, rtol=1e-9)


def by_graph(
    codes: Tensor, x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, centre: Tensor
) -> Tensor:
    """Least squares on the positive latents of every token, through autograd's own solver."""
    rows = []
    for token, row in zip(codes, x, strict=True):
        support = token.nonzero().squeeze(1)
        overlaps = W_dec[support] @ W_enc[:, support]
        pre = (row - centre) @ W_enc[:, support] + b_enc[support]
        values = torch.linalg.solve((overlaps + overlaps.T) / 2, pre)
        rows.append(torch.zeros_like(token).scatter(0, support, values))
    return torch.stack(rows)


@settings(max_examples=15)
@given(seed=seeds)
def test_the_gradient_is_that_of_the_graph_of_least_squares(seed: int):
    dictionary, x = drawn(seed, k=4)
    draw = generator(seed + 1)
    target = torch.randn(TOKENS, D, generator=draw, dtype=torch.float64)
    leaves = {
        name: tensor.detach().clone().requires_grad_()
        for name, tensor in (
            ("x", x),
            ("W_enc", dictionary.W_enc),
            ("b_enc", dictionary.b_enc),
            ("W_dec", dictionary.W_dec),
            ("centre", dictionary.b_dec),
        )
    }
    codes = dictionary.activation.encode(batch_of(dictionary, **leaves))
    found = torch.autograd.grad(
        (target - codes.decode(leaves["W_dec"])).square().sum(), list(leaves.values())
    )
    chosen = dictionary.encode(x).dense()
    reconstruction = by_graph(chosen, **leaves) @ leaves["W_dec"]
    wanted = torch.autograd.grad((target - reconstruction).square().sum(), list(leaves.values()))
    for name, one, other in zip(leaves, found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-7, msg=name)
        assert one.count_nonzero() > 0


def test_the_gradient_is_that_of_finite_differences():
    dictionary, x = drawn(11, k=3)
    rows = dictionary.W_dec.detach().clone().requires_grad_()

    def reconstruct(x: Tensor, rows: Tensor) -> Tensor:
        # One tensor for both sides, as in training.
        batch = batch_of(dictionary, x, W_enc=rows.t(), W_dec=rows, centre=None)
        return dictionary.activation.encode(batch).decode(rows)

    assert torch.autograd.gradcheck(reconstruct, (x[:4].clone().requires_grad_(), rows))


@settings(max_examples=15)
@given(seed=seeds)
def test_what_is_active_correlates_with_nothing_left_and_two_rounds_beat_matching_pursuits(
    seed: int,
):
    dictionary, x = drawn(seed)
    codes = dictionary.encode(x).dense()
    residual = x - dictionary(x)
    correlations = residual @ dictionary.directions.t()
    assert float(correlations[codes > 0].abs().max()) < 1e-9
    first = matching_pursuit(x - dictionary.bias, dictionary.directions, 2, non_negative=True)
    fewer, _ = drawn(seed, k=2)
    others = (x - dictionary.bias - first.dense() @ dictionary.directions).square().sum(1)
    assert bool(((x - fewer(x)).square().sum(1) <= others + 1e-9).all())


def test_planted_codes_are_found_where_matching_pursuit_does_not_find_them():
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8]]).double()
    planted = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]).double()
    values, latents = OrthogonalPursuitActivation(2).select_with(
        planted @ rows @ rows.t(), rows.t(), rows
    )
    codes = torch.zeros(2, 3, dtype=torch.float64).scatter(1, latents, values)
    torch.testing.assert_close(codes, planted)
    assert not torch.allclose(matching_pursuit(planted @ rows, rows, 2).dense(), planted, atol=0.01)


def test_rounds_end_where_nothing_is_left_and_at_a_share_of_the_first():
    x = torch.tensor([[8.0, 4, 2, 1, 0.5, -3], [0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1]])
    eye = torch.eye(D, dtype=torch.float64)
    for tolerance, expected in ((0.0, 5), (0.1, 4), (0.3, 2), (0.9, 1)):
        activation = OrthogonalPursuitActivation(D, tolerance)
        values, _ = activation.select_with(x.double(), eye, eye)
        assert (values != 0).sum(1).tolist() == [expected, 0, 0]


def test_twins_and_as_many_rounds_as_dimensions_are_no_trouble():
    draw = generator(3)
    rows = torch.nn.functional.normalize(torch.randn(9, D, generator=draw), dim=1)
    rows = torch.cat([rows, rows])
    x = torch.randn(50, D, generator=draw).abs() @ rows[:D]
    values, latents = OrthogonalPursuitActivation(D).select_with(x @ rows.t(), rows.t(), rows)
    assert bool(values.isfinite().all())
    assert bool((values >= 0).all())
    assert all(
        len(set(chosen[active].tolist())) == int(active.sum())
        for chosen, active in zip(latents, values > 0, strict=True)
    )


def test_codes_do_not_depend_on_the_basis_of_the_input():
    dictionary, x = drawn(5)
    basis = torch.randn(D, D, generator=generator(6), dtype=torch.float64)
    other = copy.deepcopy(dictionary)
    other.W_enc.data = torch.linalg.inv(basis) @ dictionary.W_enc.data
    other.W_dec.data = dictionary.W_dec.data @ basis
    other.b_dec.data = dictionary.b_dec.data @ basis
    assert torch.allclose(other.encode(x @ basis).dense(), dictionary.encode(x).dense(), atol=1e-8)


def test_many_tokens_are_pursued_in_parts(monkeypatch: pytest.MonkeyPatch):
    dictionary, x = drawn(7)
    whole = dictionary.encode(x).dense()
    monkeypatch.setattr("modelassay.decompositions.orthogonal_pursuit.CHUNK_ENTRIES", 300)
    assert torch.allclose(dictionary.encode(x).dense(), whole, atol=1e-12)


def test_fewer_rounds_while_a_schedule_says_so():
    dictionary, x = drawn(7)
    assert dictionary.activation.encode(batch_of(dictionary, x, k=2)).values.shape == (TOKENS, 2)


def test_it_is_saved_and_read_back(tmp_path: Path):
    dictionary, x = drawn(8)
    dictionary = dictionary.float()
    dictionary.save(tmp_path)
    again = load_decomposition(tmp_path)
    assert isinstance(again, Dictionary)
    assert again.recipe == OrthogonalMatchingPursuit(width=WIDTH, k=K)
    assert torch.equal(again.encode(x).dense(), dictionary.encode(x).dense())


def test_it_refuses_weights_between_which_least_squares_mean_nothing():
    dictionary, x = drawn(9)
    dictionary.W_enc.data += 0.3 * torch.randn(D, WIDTH, generator=generator(1))
    with pytest.raises(ValueRangeError, match="decoder's transpose, in some basis of the input"):
        dictionary.encode(x)


def test_it_refuses_what_does_not_say_how_latents_overlap():
    activation = OrthogonalPursuitActivation(2)
    with pytest.raises(ValueRangeError, match="pre-activations alone, \\[3, 4\\]"):
        activation.select(torch.zeros(3, 4))
    batch = EncoderBatch(x=torch.zeros(3, 2), W_enc=torch.zeros(2, 4), b_enc=torch.zeros(4))
    with pytest.raises(ValueRangeError, match="got a batch without W_dec"):
        activation.encode(batch)


def test_more_rounds_than_dimensions_and_a_tolerance_of_one_are_refused():
    recipe = OrthogonalMatchingPursuit(width=WIDTH, k=D + 1)
    with pytest.raises(ValueRangeError, match="1 and the number of dimensions, 6; got 7"):
        recipe.build(D, D, torch.zeros(D), generator(0), None)
    with pytest.raises(ValueRangeError, match="tolerance must be at least 0 and below 1"):
        OrthogonalMatchingPursuit(width=8, k=2, tolerance=1.0)
