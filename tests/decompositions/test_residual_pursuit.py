"""Matching pursuit that ends by the residual, against its rules for one token at a time."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.recipes import unit_rows
from modelassay.decompositions.residual_pursuit import ResidualPursuitActivation
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.storage import load_decomposition

D, WIDTH, TOKENS = 6, 15, 12


def drawn(seed: int, activation: Sparsifier) -> tuple[Dictionary, Tensor]:
    draw = generator(seed)
    rows = unit_rows(WIDTH, D, draw)
    dictionary = Dictionary(
        W_enc=rows.t(),
        b_enc=torch.zeros(WIDTH),
        W_dec=rows,
        b_dec=torch.randn(D, generator=draw),
        activation=activation,
    ).double()
    return dictionary, torch.randn(TOKENS, D, generator=draw, dtype=torch.float64)


def slowly(x: Tensor, rows: Tensor, k: int, residual: float, repeats: bool) -> Tensor:
    """One token, as the rules say."""
    z, left = torch.zeros(len(rows), dtype=x.dtype), x.clone()
    for _ in range(k):
        correlations = rows @ left
        best = int(correlations.argmax())
        if correlations[best] <= 0:
            break
        known = bool(z[best] != 0)
        z[best] += correlations[best]
        left -= correlations[best] * rows[best]
        if (repeats and known) or float(left.norm()) < residual:
            break
    return z


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    k=st.integers(1, 9),
    residual=st.sampled_from([0.0, 0.3, 1.0]),
    repeats=st.booleans(),
)
def test_codes_are_those_of_the_rules(seed: int, k: int, residual: float, repeats: bool):
    activation = ResidualPursuitActivation(k, residual, ends_at_repeats=repeats)
    dictionary, x = drawn(seed, activation)
    found = dictionary.encode(x).dense()
    centred = x - dictionary.bias
    wanted = [slowly(row, dictionary.directions, k, residual, repeats) for row in centred]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-10, rtol=1e-10)


def gradients(dictionary: Dictionary, x: Tensor) -> tuple[Tensor, ...]:
    batch = EncoderBatch(
        x=x,
        W_enc=dictionary.W_enc,
        b_enc=dictionary.b_enc,
        centre=dictionary.b_dec,
        W_dec=dictionary.W_dec,
    )
    loss = dictionary.activation.encode(batch).decode(dictionary.W_dec).square().sum()
    leaves = [dictionary.W_enc, dictionary.b_enc, dictionary.W_dec, dictionary.b_dec]
    return torch.autograd.grad(loss, leaves)


def test_without_an_end_of_its_own_codes_and_gradient_are_those_of_matching_pursuit():
    rounds = ResidualPursuitActivation(4, ends_at_repeats=False)
    one, x = drawn(3, rounds)
    other, _ = drawn(3, MatchingPursuitActivation(4))
    torch.testing.assert_close(one.encode(x).dense(), other.encode(x).dense())
    for mine, theirs in zip(gradients(one, x), gradients(other, x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


def test_the_scale_folds_with_the_residual(tmp_path: Path):
    dictionary, x = drawn(4, ResidualPursuitActivation(6, 0.8))
    before = dictionary.encode(4 * x).dense()
    dictionary.fold_input_scale(4.0)
    torch.testing.assert_close(4 * dictionary.encode(x).dense(), before)
    dictionary.save(tmp_path)
    again = load_decomposition(tmp_path)
    assert torch.equal(again.encode(x).dense(), dictionary.encode(x).dense())


def test_it_refuses_what_does_not_say_what_is_left():
    activation = ResidualPursuitActivation(2)
    with pytest.raises(ValueRangeError, match="pre-activations alone, \\[3, 4\\]"):
        activation.select(torch.zeros(3, 4))
    batch = EncoderBatch(x=torch.zeros(3, 2), W_enc=torch.zeros(2, 4), b_enc=torch.zeros(4))
    with pytest.raises(ValueRangeError, match="got a batch without W_dec"):
        activation.encode(batch)
