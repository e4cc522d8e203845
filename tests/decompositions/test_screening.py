"""Screened selections against dense float64 ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.decompositions.kernels import encode_batch_topk, encode_topk
from modelassay.decompositions.screening import (
    Screen,
    screened_above,
    screened_batch_topk,
    screened_topk,
    screening,
    screens,
)
from modelassay.decompositions.selection import pad_bags

pytestmark = pytest.mark.skipif(
    not getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)(),
    reason="needs a processor with products of bfloat16",
)
D, WIDTH, TOKENS = 64, 2048, 150
seeds = st.integers(0, 2**32)


def draw(seed, *, spread=0.5, bias=1.0, centred=True):
    """Activations of unequal lengths and axes, an encoder of unequal columns, biases, a centre."""
    source = generator(seed)
    axes = torch.exp(spread * torch.randn(D, generator=source))
    lengths = torch.exp(spread * torch.randn(TOKENS, 1, generator=source))
    x = lengths * axes * torch.randn(TOKENS, D, generator=source)
    rows = torch.nn.functional.normalize(torch.randn(WIDTH, D, generator=source), dim=1)
    rows = rows * torch.exp(0.2 * torch.randn(WIDTH, 1, generator=source))
    b_enc = bias * torch.randn(WIDTH, generator=source)
    centre = torch.randn(D, generator=source) if centred else None
    return x, rows.t(), b_enc, centre


def exact(x, W_enc, b_enc, centre):
    shifted = x.double() if centre is None else x.double() - centre.double()
    return shifted @ W_enc.double() + b_enc.double()


def dense(values, indices):
    return values.new_zeros(TOKENS, WIDTH).scatter_add(1, indices, values)


@given(seeds, st.floats(0, 1.5), st.sampled_from([0.0, 1.0, 30.0]), st.booleans())
@settings(deadline=None, max_examples=25)
def test_rough_values_are_within_their_bound_of_exact_ones(seed, spread, bias, centred):
    x, W_enc, b_enc, centre = draw(seed, spread=spread, bias=bias, centred=centred)
    pre = exact(x, W_enc, b_enc, centre)
    screen = Screen.of(W_enc, b_enc)
    at = 0
    for look in screen.chunks(x, centre, torch.empty(64, WIDTH)):
        here = pre[at : at + len(look.x)]
        result = 2.0**-9 * (2 * look.pre.double().abs() + screen.largest_bias)
        assert ((look.pre.double() - here).abs() <= 1.02 * (look.apart + result)).all()
        # Of each value taken as a bound, what lies above exactly lies above roughly.
        for column in (0, 7):
            bound = here[:, column : column + 1].float() - 1e-5
            assert (look.pre[:, column] > look.below(bound).bfloat16()[:, 0]).all()
        at += len(look.x)
    assert at == TOKENS


@given(seeds, st.sampled_from([0.0, 0.4]), st.integers(1, 20), st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_largest_are_those_of_the_dense_product(seed, spread, k, centred):
    x, W_enc, b_enc, centre = draw(seed, spread=spread, bias=0.3, centred=centred)
    with screening(True):
        found = screened_topk(x, W_enc, b_enc, k, centre, torch.empty(40, WIDTH))
    assert found is not None
    best = exact(x, W_enc, b_enc, centre).topk(k).values
    torch.testing.assert_close(found[0].sort(descending=True).values, best.float())
    there = exact(x, W_enc, b_enc, centre).gather(1, found[1])
    torch.testing.assert_close(there.float(), found[0])


@given(seeds, st.integers(1, 20))
@settings(deadline=None, max_examples=15)
def test_the_largest_of_a_batch_are_among_those_found(seed, k):
    x, W_enc, b_enc, centre = draw(seed)
    with screening(True):
        found = screened_batch_topk(x, W_enc, b_enc, k, centre, None)
    if found is None:
        return
    pre = exact(x, W_enc, b_enc, centre)
    best = pre.flatten().topk(k * TOKENS).values
    torch.testing.assert_close(found[0].topk(k * TOKENS).values, best.float(), rtol=1e-5, atol=1e-5)


@given(seeds)
@settings(deadline=None, max_examples=15)
def test_all_above_their_tokens_bound_are_found_and_nothing_else(seed):
    x, W_enc, b_enc, centre = draw(seed, spread=0.2)
    bounds = 4 + torch.rand(TOKENS, 1, generator=generator(seed + 1))
    with screening(True):
        found = screened_above(x, W_enc, b_enc, bounds, centre, torch.empty(64, WIDTH))
    assert found is not None
    pre = exact(x, W_enc, b_enc, centre)
    got = dense(*pad_bags(*found)).double()
    sure = (pre - bounds).abs() > 1e-5
    torch.testing.assert_close((got * sure).float(), (pre * (pre > bounds) * sure).float())


def test_encoding_is_the_same_screened_or_not():
    x, W_enc, b_enc, centre = draw(3)
    codes = []
    for allowed in (True, False):
        with screening(allowed):
            slots = encode_topk(x, W_enc, b_enc, 8, centre=centre)
            values, indices, offsets = encode_batch_topk(x, W_enc, b_enc, 8, centre=centre)
        codes.append((dense(*slots), dense(*pad_bags(values, indices, offsets))))
    for screened, plain in zip(*codes, strict=True):
        torch.testing.assert_close(screened, plain)


def test_tokens_at_the_centre_have_no_active_latent():
    _, W_enc, _, centre = draw(2)
    x = torch.zeros(TOKENS, D) + centre
    with screening(True):
        values, indices = encode_topk(x, W_enc, torch.zeros(WIDTH), 8, centre=centre)
    assert values.shape == indices.shape == (TOKENS, 8)
    assert not values.any()


def test_where_bounds_tell_little_the_dense_product_is_left_to_decide():
    # One coordinate a thousand times as large as all others, on which no latent depends.
    x, W_enc, b_enc, _ = draw(1, spread=0.0)
    x[:, 0] = 1e4
    W_enc[0] = 0
    with screening(True):
        assert screened_topk(x, W_enc, b_enc, 8, None, None) is None
        assert screened_above(x, W_enc, b_enc, torch.ones(TOKENS, 1), None, None) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_left_to_the_dense_product(bad):
    x, W_enc, b_enc, _ = draw(1)
    x[3, 5] = bad
    with screening(True):
        assert screened_topk(x, W_enc, b_enc, 8, None, None) is None
        assert screened_above(x, W_enc, b_enc, torch.full((TOKENS, 1), 4.0), None, None) is None


def test_small_and_double_precision_products_are_not_screened():
    x, W_enc, *_ = draw(0)
    assert not screens(x, W_enc)  # 2^17 entries
    with screening(True):
        assert screens(x, W_enc)
        assert not screens(x.double(), W_enc.double())
