"""Matching pursuit as a sparsifier, against rounds on residuals and their whole graph."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.pursuit import matching_pursuit
from modelassay.decompositions.recipes import MatchingPursuit
from modelassay.decompositions.storage import load_decomposition

D, WIDTH, K = 6, 20, 5
FEW, MANY = 2, 30
"""Tokens with which each choice's overlaps are made, and all latents' at once."""


def drawn(seed: int, tokens: int = MANY, *, k: int = K) -> tuple[Dictionary, Tensor]:
    """An untrained dictionary with a bias, and activations."""
    draw = generator(seed)
    dictionary = MatchingPursuit(width=WIDTH, k=k).build(
        D, D, torch.randn(D, generator=draw), draw, None
    )
    return dictionary.double(), torch.randn(tokens, D, generator=draw, dtype=torch.float64)


def by_residuals(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, centre: Tensor, k: int
) -> Tensor:
    """The definition: every round reads the residual of the one before. Differentiable."""
    residual, codes = x - centre, x.new_zeros(len(x), len(W_dec))
    for _ in range(k):
        pre = residual @ W_enc + b_enc
        amount, latent = pre.max(1)
        amount = amount.relu()
        step = torch.zeros_like(codes).scatter(1, latent.unsqueeze(1), amount.unsqueeze(1))
        codes, residual = codes + step, residual - step @ W_dec
    return codes


def batch_of(dictionary: Dictionary, x: Tensor, *, rows: int | None = None) -> EncoderBatch:
    return EncoderBatch(
        x=x,
        W_enc=dictionary.W_enc,
        b_enc=dictionary.b_enc,
        centre=dictionary.b_dec,
        buffer=None if rows is None else x.new_empty(rows, WIDTH),
        W_dec=dictionary.W_dec,
    )


@pytest.mark.parametrize("tokens", [FEW, MANY])
@given(seed=st.integers(0, 2**32))
def test_codes_are_those_of_the_pursuit_at_inference_time(tokens: int, seed: int):
    dictionary, x = drawn(seed, tokens)
    expected = matching_pursuit(
        x - dictionary.bias, dictionary.directions, K, non_negative=True
    ).dense()
    assert torch.allclose(dictionary.encode(x).dense(), expected, atol=1e-12)
    trained = dictionary.activation.encode(batch_of(dictionary, x, rows=7))
    eye = torch.eye(WIDTH, dtype=torch.float64)
    assert torch.allclose(trained.decode(eye), expected, atol=1e-12)


@pytest.mark.parametrize("tokens", [FEW, MANY])
@pytest.mark.parametrize("untied", [False, True])
@given(seed=st.integers(0, 2**32))
def test_the_gradient_is_that_of_the_graph_of_all_rounds(tokens: int, untied: bool, seed: int):
    dictionary, x = drawn(seed, tokens)
    draw = generator(seed + 1)
    if untied:
        for weights in (dictionary.W_enc, dictionary.b_enc):
            noise = torch.randn(weights.shape, generator=draw, dtype=torch.float64)
            weights.data += 0.05 * noise
    target = torch.randn(tokens, D, generator=draw, dtype=torch.float64)
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
    batch = EncoderBatch(
        x=leaves["x"],
        W_enc=leaves["W_enc"],
        b_enc=leaves["b_enc"],
        centre=leaves["centre"],
        W_dec=leaves["W_dec"],
    )
    codes = dictionary.activation.encode(batch)
    found = torch.autograd.grad(
        (target - codes.decode(leaves["W_dec"])).square().sum(), list(leaves.values())
    )
    reconstruction = by_residuals(**leaves, k=K) @ leaves["W_dec"]
    wanted = torch.autograd.grad((target - reconstruction).square().sum(), list(leaves.values()))
    for name, one, other in zip(leaves, found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-9, rtol=1e-9), name
    assert all(gradient.count_nonzero() > 0 for gradient in wanted)


def test_many_tokens_are_differentiated_in_parts(monkeypatch: pytest.MonkeyPatch):
    dictionary, x = drawn(3)

    def gradient() -> Tensor:
        codes = dictionary.activation.encode(batch_of(dictionary, x))
        (found,) = torch.autograd.grad(codes.values.square().sum(), [dictionary.W_dec])
        return found

    whole = gradient()
    monkeypatch.setattr("modelassay.decompositions.matching_pursuit._CHUNK_ENTRIES", 7 * K * D)
    assert torch.allclose(gradient(), whole, atol=1e-12)


def test_a_latent_that_is_chosen_again_adds_to_its_own_value():
    rows = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    dictionary = Dictionary(
        W_enc=rows.t(),
        b_enc=torch.zeros(2),
        W_dec=rows,
        b_dec=torch.zeros(2),
        activation=MatchingPursuitActivation(3),
    ).double()
    # 1 of the first leaves (0, 1); 0.8 of the second leaves (0.48, 0.36): 0.48 of the first.
    codes = dictionary.encode(torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    assert codes.dense().tolist()[0] == pytest.approx([1.48, 0.8])
    assert int(codes.l0()[0]) == 2


@given(st.integers(0, 2**32))
def test_each_round_lowers_the_error_and_the_residual_is_orthogonal_to_the_last_choice(seed: int):
    errors = [
        (x - dictionary(x)).square().sum(1)
        for k in (1, 2, 3, 4)
        for dictionary, x in [drawn(seed, k=k)]
    ]
    assert all(bool((b <= a + 1e-12).all()) for a, b in pairwise(errors))


def test_rounds_end_where_nothing_is_left():
    rows = torch.eye(D, dtype=torch.float64)
    dictionary = Dictionary(
        W_enc=rows,
        b_enc=torch.zeros(D),
        W_dec=rows,
        b_dec=torch.zeros(D),
        activation=MatchingPursuitActivation(4),
    ).double()
    x = torch.tensor([[3.0, 0, 2, 0, 0, -5], [0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1]])
    assert dictionary.encode(x).dense().tolist() == [
        [3, 0, 2, 0, 0, 0],
        [0] * D,
        [0] * D,
    ]


def test_a_tolerance_ends_rounds_at_a_share_of_the_first():
    rows = torch.eye(D, dtype=torch.float64)
    x = torch.tensor([[8.0, 4, 2, 1, 0.5, 0.25]])
    for tolerance, expected in ((0.0, 6), (0.1, 4), (0.3, 2), (0.9, 1)):
        dictionary = Dictionary(
            W_enc=rows,
            b_enc=torch.zeros(D),
            W_dec=rows,
            b_dec=torch.zeros(D),
            activation=MatchingPursuitActivation(D, tolerance),
        ).double()
        assert int(dictionary.encode(x).l0()[0]) == expected


def test_codes_do_not_depend_on_the_basis_of_the_input():
    dictionary, x = drawn(5)
    basis = torch.randn(D, D, generator=generator(6), dtype=torch.float64)
    other = copy.deepcopy(dictionary)
    other.W_enc.data = torch.linalg.inv(basis) @ dictionary.W_enc.data
    other.W_dec.data = dictionary.W_dec.data @ basis
    other.b_dec.data = dictionary.b_dec.data @ basis
    assert torch.allclose(other.encode(x @ basis).dense(), dictionary.encode(x).dense(), atol=1e-9)


def test_fewer_rounds_while_a_schedule_says_so():
    dictionary, x = drawn(7)
    batch = batch_of(dictionary, x)
    fewer = EncoderBatch(x=x, W_enc=batch.W_enc, b_enc=batch.b_enc, W_dec=batch.W_dec, k=2)
    assert dictionary.activation.encode(fewer).values.shape == (MANY, 2)


def test_it_is_saved_and_read_back(tmp_path: Path):
    dictionary, x = drawn(8)
    dictionary = dictionary.float()
    dictionary.save(tmp_path)
    again = load_decomposition(tmp_path)
    assert isinstance(again, Dictionary)
    assert again.recipe == MatchingPursuit(width=WIDTH, k=K)
    assert torch.equal(again.encode(x).dense(), dictionary.encode(x).dense())


def test_it_refuses_what_does_not_say_how_latents_overlap():
    activation = MatchingPursuitActivation(2)
    with pytest.raises(ValueRangeError, match="pre-activations alone, \\[3, 4\\]"):
        activation.select(torch.zeros(3, 4))
    batch = EncoderBatch(x=torch.zeros(3, 2), W_enc=torch.zeros(2, 4), b_enc=torch.zeros(4))
    with pytest.raises(ValueRangeError, match="got a batch without W_dec"):
        activation.encode(batch)


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_it_refuses_a_tolerance_that_would_end_before_the_first_round(tolerance: float):
    with pytest.raises(ValueRangeError, match="tolerance must be at least 0 and below 1"):
        MatchingPursuit(width=8, k=2, tolerance=tolerance)
