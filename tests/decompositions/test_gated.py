"""Gated dictionaries against the definition of the paper, in float64."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.gated import GatedActivation

TOKENS, D, WIDTH = 20, 6, 24


def papers_values(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Two encoders with tied directions: one says which, the other how much."""
    centred = x - weights["b_dec"]
    gate = centred @ weights["W_gate"] + weights["b_gate"]
    magnitude = centred @ (weights["W_gate"] * weights["r_mag"].exp()) + weights["b_mag"]
    return (gate > 0) * magnitude.relu()


def drawn(seed: int, shift: float) -> tuple[Dictionary, dict[str, Tensor], Tensor]:
    """The paper's weights, the dictionary that they mean, and activations."""
    draw = generator(seed)
    weights = {
        "W_gate": torch.randn(D, WIDTH, generator=draw, dtype=torch.float64),
        "b_gate": torch.randn(WIDTH, generator=draw, dtype=torch.float64) + shift,
        "b_mag": torch.randn(WIDTH, generator=draw, dtype=torch.float64),
        "r_mag": 0.5 * torch.randn(WIDTH, generator=draw, dtype=torch.float64),
        "b_dec": torch.randn(D, generator=draw, dtype=torch.float64),
    }
    offset = weights["b_mag"] - weights["r_mag"].exp() * weights["b_gate"]
    dictionary = Dictionary(
        W_enc=weights["W_gate"],
        b_enc=weights["b_gate"],
        W_dec=torch.randn(WIDTH, D, generator=draw, dtype=torch.float64),
        b_dec=weights["b_dec"],
        activation=GatedActivation(weights["r_mag"], offset),
    )
    x = 2 * torch.randn(TOKENS, D, generator=draw, dtype=torch.float64)
    return dictionary, weights, x


def training_batch(dictionary: Dictionary, x: Tensor) -> EncoderBatch:
    return EncoderBatch(
        x=x, W_enc=dictionary.W_enc, b_enc=dictionary.b_enc, centre=dictionary.b_dec
    )


# Gates that are rarely open are found one by one; many open ones are multiplied densely.
@pytest.mark.parametrize(("shift", "sparse"), [(-12.0, True), (1.0, False)])
@given(seed=st.integers(0, 2**32))
def test_values_are_the_papers_at_inference_and_in_training(shift: float, sparse: bool, seed: int):
    dictionary, weights, x = drawn(seed, shift)
    expected = papers_values(weights, x)
    assert torch.allclose(dictionary.encode(x).dense(), expected, atol=1e-12)
    codes = dictionary.activation.encode(training_batch(dictionary, x))
    assert torch.allclose(codes.decode(dictionary.W_dec), expected @ dictionary.W_dec, atol=1e-11)
    assert (codes.indices is not None) == sparse


@pytest.mark.parametrize("shift", [-12.0, 1.0])
def test_the_gradient_of_the_values_closes_no_gate(shift: float):
    dictionary, _, x = drawn(3, shift)
    target = torch.randn(TOKENS, D, generator=generator(4), dtype=torch.float64)
    codes = dictionary.activation.encode(training_batch(dictionary, x))
    (target * codes.decode(dictionary.W_dec)).sum().backward()
    found = {n: p.grad.clone() for n, p in dictionary.named_parameters() if p.grad is not None}

    gates = GatedActivation(
        dictionary.get_parameter("activation.log_gain"),
        dictionary.get_parameter("activation.offset"),
    )
    pre = dictionary.pre_activations(x)
    magnitudes = (gates.log_gain.exp() * pre + gates.offset).relu()
    dictionary.zero_grad()
    # A step function has no gradient: a constant mask.
    (target * ((magnitudes * (pre > 0).detach()) @ dictionary.W_dec)).sum().backward()
    for name in ("W_enc", "b_enc", "b_dec", "W_dec"):
        expected = dictionary.get_parameter(name).grad
        assert expected is not None
        assert torch.allclose(found[name], expected, atol=1e-10), name
    assert gates.log_gain.grad is not None
    assert gates.offset.grad is not None
    assert torch.allclose(found["activation.log_gain"], gates.log_gain.grad, atol=1e-10)
    assert torch.allclose(found["activation.offset"], gates.offset.grad, atol=1e-10)


def test_a_magnitude_may_be_zero_where_the_gate_is_open():
    gates = GatedActivation(torch.zeros(2), torch.tensor([-2.0, 1.0]))
    values, indices = gates.select(torch.tensor([[1.0, -1.0], [3.0, 2.0]]))
    found = Codes(values=values, indices=indices, width=2).dense().tolist()
    assert found == [[0.0, 0.0], [1.0, 3.0]]


@given(st.integers(0, 2**32), st.sampled_from([0.5, 3.0]))
def test_the_input_scale_folds_exactly(seed: int, scale: float):
    dictionary, _, x = drawn(seed, -1.0)
    folded = copy.deepcopy(dictionary)
    folded.fold_input_scale(scale)
    expected = dictionary.encode(scale * x).dense() / scale
    assert torch.allclose(folded.encode(x).dense(), expected, atol=1e-12)
    assert torch.allclose(folded(x), dictionary(scale * x) / scale, atol=1e-11)


@given(st.integers(0, 2**32))
def test_decoder_norms_fold_exactly(seed: int):
    dictionary, _, x = drawn(seed, -1.0)
    before = dictionary(x)
    norms = dictionary.directions.norm(dim=1)
    values = dictionary.encode(x).dense()
    dictionary.fold_decoder_norms()
    assert torch.allclose(dictionary(x), before, atol=1e-10)
    assert torch.allclose(dictionary.encode(x).dense(), values * norms, atol=1e-10)
