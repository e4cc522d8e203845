"""Dictionaries against their definition in slow float64 loops."""

import copy

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions import decomposition as interface
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)

D, WIDTH = 6, 32
seeds = st.integers(0, 2**32)
kinds = st.sampled_from(["topk", "batchtopk", "relu", "jumprelu"])


def make_dictionary(kind, seed, *, apply_b_dec_to_input=True, dtype=torch.float64):
    source = generator(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=source, dtype=dtype)

    activation = {
        "topk": lambda: TopKActivation(3),
        "batchtopk": lambda: BatchTopKActivation(3, 1.5),
        "relu": ReLUActivation,
        "jumprelu": lambda: JumpReLUActivation(draw(WIDTH).abs()),
    }[kind]()
    return Dictionary(
        W_enc=draw(D, WIDTH),
        b_enc=draw(WIDTH),
        W_dec=draw(WIDTH, D),
        b_dec=draw(D),
        activation=activation,
        apply_b_dec_to_input=apply_b_dec_to_input,
    )


def draw_activations(seed, n_tokens):
    return torch.randn(n_tokens, D, generator=generator(seed), dtype=torch.float64)


def codes_by_hand(dictionary, x):
    """Latent by latent, token by token."""
    threshold = getattr(dictionary.activation, "threshold", torch.zeros(()))
    result = torch.zeros(len(x), WIDTH, dtype=torch.float64)
    for token, row in enumerate(x):
        centred = row - dictionary.b_dec if dictionary.apply_b_dec_to_input else row
        pre = [float(centred @ dictionary.W_enc[:, i] + dictionary.b_enc[i]) for i in range(WIDTH)]
        if dictionary.activation.kind == "topk":
            bound = sorted(pre)[-dictionary.activation.k]
            active = [value > 0 and value >= bound for value in pre]
        else:
            bounds = threshold.expand(WIDTH).tolist()
            active = [value > 0 and value > bounds[i] for i, value in enumerate(pre)]
        kept = [value if is_active else 0.0 for value, is_active in zip(pre, active, strict=True)]
        result[token] = torch.tensor(kept, dtype=torch.float64)
    return result


@given(seeds, kinds, st.booleans(), st.integers(0, 4))
def test_codes_and_reconstruction_follow_the_definition(seed, kind, centred, n_tokens):
    dictionary = make_dictionary(kind, seed, apply_b_dec_to_input=centred)
    x = draw_activations(seed + 1, n_tokens)
    codes = dictionary.encode(x)
    with torch.no_grad():
        by_hand = codes_by_hand(dictionary, x)
    torch.testing.assert_close(codes.dense(), by_hand)
    expected = by_hand @ dictionary.directions + dictionary.bias
    torch.testing.assert_close(dictionary.decode(codes), expected)
    torch.testing.assert_close(dictionary(x), expected)


@given(seeds, kinds, st.floats(0.01, 100))
def test_folding_the_input_scale_keeps_the_reconstruction(seed, kind, scale):
    dictionary = make_dictionary(kind, seed)
    x = draw_activations(seed + 1, 5)
    expected, codes = dictionary(scale * x) / scale, dictionary.encode(scale * x)
    directions = dictionary.directions.clone()
    dictionary.fold_input_scale(scale)
    torch.testing.assert_close(dictionary(x), expected)
    torch.testing.assert_close(dictionary.encode(x).dense() * scale, codes.dense())
    assert torch.equal(dictionary.directions, directions)


@given(seeds, st.sampled_from(["relu", "jumprelu"]))
def test_folding_decoder_norms_keeps_the_reconstruction(seed, kind):
    dictionary = make_dictionary(kind, seed)
    with torch.no_grad():
        dictionary.W_dec[0] = 0
    x = draw_activations(seed + 1, 5)
    expected = dictionary(x)
    dictionary.fold_decoder_norms()
    torch.testing.assert_close(dictionary(x), expected)
    norms = dictionary.directions.norm(dim=1)
    torch.testing.assert_close(norms[1:], torch.ones_like(norms[1:]))
    assert norms[0] == 0


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_decoder_norms_are_not_folded_where_latents_compete(kind):
    with pytest.raises(ValueRangeError, match=f"each latent is chosen on its own; got {kind}"):
        make_dictionary(kind, 0).fold_decoder_norms()


@pytest.mark.parametrize("kind", ["topk", "relu"])
def test_chunks_of_tokens_change_nothing(kind, monkeypatch):
    dictionary, x = make_dictionary(kind, 0), draw_activations(1, 10)
    whole = dictionary.encode(x)
    expected = dictionary.decode(whole)
    monkeypatch.setattr(interface, "_CHUNK_ENTRIES", 3 * WIDTH)
    torch.testing.assert_close(dictionary.encode(x).dense(), whole.dense())
    torch.testing.assert_close(dictionary.decode(whole), expected)


def test_encoding_keeps_no_graph_and_decoding_only_that_of_the_values():
    dictionary = make_dictionary("topk", 0)
    codes = dictionary.encode(draw_activations(1, 4).requires_grad_())
    assert not codes.values.requires_grad
    assert not dictionary.decode(codes).requires_grad
    values = codes.values.clone().requires_grad_()
    dictionary.decode(Codes(indices=codes.indices, values=values, width=WIDTH)).sum().backward()
    torch.testing.assert_close(values.grad, dictionary.directions.sum(1)[codes.indices])


def test_pre_activations_are_differentiable():
    dictionary = make_dictionary("topk", 0)
    dictionary.pre_activations(draw_activations(1, 4)).sum().backward()
    torch.testing.assert_close(dictionary.b_enc.grad, torch.full_like(dictionary.b_enc, 4))
    assert dictionary.b_dec.grad.abs().sum() > 0


def test_half_precision_activations_are_encoded_in_the_weights_precision():
    dictionary = make_dictionary("topk", 0, dtype=torch.float32)
    x = draw_activations(1, 4).half()
    assert torch.equal(dictionary.encode(x).dense(), dictionary.encode(x.float()).dense())


def test_encoder_columns_stay_contiguous():
    dictionary = make_dictionary("topk", 0)
    for one in (dictionary, copy.deepcopy(dictionary), copy.deepcopy(dictionary).float()):
        assert one.W_enc.t().is_contiguous()


def test_weights_are_copies():
    W_dec = torch.eye(3)
    dictionary = Dictionary(
        W_enc=W_dec.t(),
        b_enc=torch.zeros(3),
        W_dec=W_dec,
        b_dec=torch.zeros(3),
        activation=ReLUActivation(),
    )
    W_dec.zero_()
    assert dictionary.W_enc.sum() == dictionary.W_dec.sum() == 3


def test_names_say_kind_width_and_sparsity():
    assert make_dictionary("topk", 0).name == "TopK 32 (k=3)"
    assert make_dictionary("relu", 0).name == "ReLU 32"


def test_activations_of_another_width_are_refused():
    dictionary = make_dictionary("topk", 0)
    for call in (dictionary.encode, dictionary.pre_activations):
        with pytest.raises(ShapeError, match=r"\[token, 6\]; got \[2, 5\]"):
            call(torch.zeros(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_with_their_row(bad, monkeypatch):
    dictionary, x = make_dictionary("topk", 0), draw_activations(1, 10)
    x[7, 2] = bad
    monkeypatch.setattr(interface, "_CHUNK_ENTRIES", 3 * WIDTH)
    with pytest.raises(NonFiniteError, match="got NaN or Inf in row 7"):
        dictionary.encode(x)


def test_codes_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="must have 32 latents; got 3"):
        make_dictionary("topk", 0).decode(Codes.from_dense(torch.eye(3)))


def test_transposed_weights_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ShapeError, match=r"got \[6, 32\], \[32\], \[6, 32\], \[6\]"):
        Dictionary(
            W_enc=torch.zeros(6, 32),
            b_enc=torch.zeros(32),
            W_dec=torch.zeros(6, 32),
            b_dec=torch.zeros(6),
            activation=ReLUActivation(),
        )


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale):
    with pytest.raises(ValueRangeError, match="scale must be above 0"):
        make_dictionary("topk", 0).fold_input_scale(scale)
