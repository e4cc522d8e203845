"""Sparse products and gradients against dense autograd in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.decompositions.kernels import (
    encode_batch_topk,
    encode_topk,
    sparse_decode,
    sparse_encoder_gradient,
    with_encoder_gradient,
)
from modelassay.decompositions.selection import pad_bags, rows_of

seeds = st.integers(0, 2**32)
# Empty batch, one token, and more tokens than the buffer below has rows.
token_counts = st.sampled_from([0, 1, 11])
widths = st.sampled_from([5, 48, 256])
# 300 exceeds every width: all positive pre-activations are active.
ks = st.sampled_from([1, 3, 300])
BUFFER_ROWS = 4


class Problem:
    """Weights, data and a target, all float64 leaves that require gradients."""

    def __init__(self, seed, n_tokens, width, d=6):
        source = generator(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=source, dtype=torch.float64).requires_grad_()

        self.x, self.centre = draw(n_tokens, d), draw(d)
        # Rounded weights give ties; a column of zeros gives pre-activations of exactly 0.
        rounded = (draw(width, d).detach() * 2).round() / 2
        rounded[0] = 0
        self.W_enc = rounded.t().requires_grad_()
        self.b_enc = torch.zeros(width, dtype=torch.float64, requires_grad=True)
        self.W_dec, self.target = draw(width, d), draw(n_tokens, d).detach()
        self.buffer = torch.empty(BUFFER_ROWS, width, dtype=torch.float64)

    @property
    def leaves(self):
        return [self.x, self.centre, self.W_enc, self.b_enc, self.W_dec]

    def dense_loss(self, active):
        """The loss with the given dense mask of active latents."""
        pre = (self.x - self.centre) @ self.W_enc + self.b_enc
        return self.loss((pre * active).relu() @ self.W_dec)

    def loss(self, reconstruction):
        # Quartic, so that a second derivative mistaken for a first would show.
        return (reconstruction - self.target).pow(4).sum()

    def assert_same_gradients(self, fast_loss, active):
        slow_loss = self.dense_loss(active)
        torch.testing.assert_close(fast_loss, slow_loss)
        fast = torch.autograd.grad(fast_loss, self.leaves)
        slow = torch.autograd.grad(slow_loss, self.leaves)
        for found, wanted in zip(fast, slow, strict=True):
            torch.testing.assert_close(found, wanted)


def mask(shape, rows, columns):
    active = torch.zeros(shape, dtype=torch.float64)
    active[rows, columns] = 1
    return active


@given(seeds, token_counts, widths, ks)
def test_topk_autoencoder_equals_the_dense_one(seed, n_tokens, width, k):
    p = Problem(seed, n_tokens, width)
    values, indices = encode_topk(p.x, p.W_enc, p.b_enc, k, centre=p.centre, buffer=p.buffer)
    assert values.shape == (n_tokens, min(k, width))
    active = mask((n_tokens, width), torch.arange(n_tokens).unsqueeze(1), indices)
    # The chosen are the largest: nothing that was left exceeds the smallest chosen.
    pre = ((p.x - p.centre) @ p.W_enc + p.b_enc).detach()
    wanted = pre.topk(min(k, width)).values.clamp(min=0)
    torch.testing.assert_close(values.sort(descending=True).values, wanted)
    p.assert_same_gradients(p.loss(sparse_decode(values, indices, p.W_dec)), active)


@given(seeds, token_counts, widths, ks)
def test_batch_topk_autoencoder_equals_the_dense_one(seed, n_tokens, width, k):
    p = Problem(seed, n_tokens, width)
    values, indices, offsets = encode_batch_topk(
        p.x, p.W_enc, p.b_enc, k, centre=p.centre, buffer=p.buffer
    )
    pre = ((p.x - p.centre) @ p.W_enc + p.b_enc).detach()
    count = min(k * n_tokens, int((pre > 0).sum()))
    wanted = pre.flatten().topk(count).values
    torch.testing.assert_close(values.detach().sort(descending=True).values, wanted)
    active = mask((n_tokens, width), rows_of(offsets, values.numel()), indices)
    p.assert_same_gradients(p.loss(sparse_decode(values, indices, p.W_dec, offsets)), active)


def test_batch_topk_is_exact_when_the_first_chunk_misleads():
    p = Problem(0, 12, 256)
    with torch.no_grad():
        p.x[:BUFFER_ROWS] *= 1000  # its threshold is far above what the other tokens reach
        p.centre.zero_()
    values, _, _ = encode_batch_topk(p.x, p.W_enc, p.b_enc, 60, buffer=p.buffer)
    wanted = (p.x @ p.W_enc).flatten().topk(60 * 12).values
    torch.testing.assert_close(values.detach().sort(descending=True).values, wanted.detach())


@given(seeds, token_counts)
def test_bags_and_their_padded_slots_decode_alike(seed, n_tokens):
    p = Problem(seed, n_tokens, 48)
    bags = encode_batch_topk(p.x, p.W_enc, p.b_enc, 3)
    padded = sparse_decode(*pad_bags(*bags), p.W_dec)
    torch.testing.assert_close(sparse_decode(bags[0], bags[1], p.W_dec, bags[2]), padded)


def test_gradients_agree_with_finite_differences():
    p = Problem(3, 5, 48)
    indices = torch.randint(0, 48, (5, 4), generator=generator(0))
    values = torch.rand(5, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, w: sparse_decode(v, indices, w), (values, p.W_dec))


def test_a_selected_entry_that_is_not_positive_carries_no_gradient():
    x = torch.ones(1, 1)
    W_enc = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    b_enc = torch.zeros(3, requires_grad=True)
    values, indices = encode_topk(x, W_enc, b_enc, 3)
    assert dict(zip(indices[0].tolist(), values[0].tolist(), strict=True)) == {0: 2, 1: 0, 2: 0}
    values.sum().backward()
    assert W_enc.grad.tolist() == [[1, 0, 0]]
    assert b_enc.grad.tolist() == [1, 0, 0]


def test_the_input_gets_a_gradient_only_if_it_wants_one():
    p = Problem(1, 4, 48)
    x = p.x.detach()
    values, _ = encode_topk(x, p.W_enc, p.b_enc, 3)
    values.sum().backward()
    assert x.grad is None
    assert p.W_enc.grad is not None


def test_a_frozen_weight_gets_no_gradient():
    p = Problem(1, 4, 48)
    values, indices = encode_topk(p.x, p.W_enc, p.b_enc, 3)
    sparse_decode(values, indices, p.W_dec.detach()).sum().backward()
    assert p.W_dec.grad is None
    assert p.b_enc.grad.abs().sum() > 0
    values, _ = encode_topk(p.x.detach(), p.W_enc.detach(), p.b_enc, 3)
    p.b_enc.grad = None
    values.sum().backward()
    assert p.b_enc.grad.sum() == (values > 0).sum()


def test_the_encoder_gradient_has_contiguous_columns():
    p = Problem(1, 4, 48)
    gradient, _ = sparse_encoder_gradient(
        torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.long), p.x.detach(), 48
    )
    assert gradient.shape == p.W_enc.shape
    assert gradient.t().is_contiguous()
    torch.testing.assert_close(gradient[:, 0], 2 * p.x.detach().sum(0))


def test_values_pass_through_unchanged_when_a_gradient_is_attached():
    p = Problem(1, 4, 48)
    values = torch.rand(4, 2, dtype=torch.float64, generator=generator(0))
    indices = torch.tensor([[0, 1]] * 4)
    attached = with_encoder_gradient(values, indices, p.x, p.W_enc, p.b_enc)
    assert torch.equal(attached, values)
    assert attached.requires_grad


@pytest.mark.parametrize("n_tokens", [1, 1500])
def test_single_precision_is_close_to_double(n_tokens):
    p = Problem(7, n_tokens, 256, d=24)
    doubles = [t.detach() for t in (p.x, p.W_enc, p.b_enc, p.W_dec)]
    results = []
    for dtype in (torch.float32, torch.float64):
        x, W_enc, b_enc, W_dec = (t.to(dtype).requires_grad_() for t in doubles)
        values, indices = encode_topk(x, W_enc, b_enc, 8)  # no buffer: 1,500 tokens are 2 chunks
        loss = sparse_decode(values, indices, W_dec).square().sum() / n_tokens
        results.append([loss, *torch.autograd.grad(loss, [W_enc, W_dec])])
    for single, double in zip(*results, strict=True):
        # A tie broken otherwise in single precision moves one latent's gradient, not the whole.
        error = (single.double() - double).norm() / double.norm()
        assert error < 1e-3


def test_nothing_active_decodes_to_zero_with_zero_gradients():
    weight = torch.ones(3, 2, requires_grad=True)
    values = torch.zeros(4, 0, requires_grad=True)
    decoded = sparse_decode(values, torch.zeros(4, 0, dtype=torch.long), weight)
    decoded.sum().backward()
    assert torch.equal(decoded, torch.zeros(4, 2))
    assert torch.equal(weight.grad, torch.zeros(3, 2))
