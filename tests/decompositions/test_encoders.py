"""Encoders of other selections, and nested decoding, against dense definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.encoders import encode_above, encode_slots, jump
from modelassay.decompositions.nested import nested_decode
from modelassay.decompositions.selection import abs_topk, group_max, pad_bags, rows_of
from modelassay.decompositions.sparsifiers import JumpReLUActivation

seeds = st.integers(0, 2**32)
token_counts = st.sampled_from([0, 1, 11])


def draw(seed, n_tokens, width=48, d=6):
    source = generator(seed)
    shapes = ((n_tokens, d), (d, width), (width,), (d,))
    x, W_enc, b_enc, centre = (
        torch.randn(*s, generator=source, dtype=torch.float64).requires_grad_() for s in shapes
    )
    return x, W_enc, b_enc, centre


def dense(values, indices, width):
    return values.new_zeros(len(values), width).scatter_add(1, indices, values)


@given(seeds, token_counts, st.sampled_from([1, 3, 300]), st.sampled_from([5, 48, 256]))
def test_abs_topk_keeps_the_largest_magnitudes_with_their_signs(seed, n_tokens, k, width):
    pre = torch.randn(n_tokens, width, generator=generator(seed))
    values, indices = abs_topk(pre, k)
    bound = pre.abs().topk(min(k, width)).values[:, -1:]
    assert torch.equal(dense(values, indices, width), pre * (pre.abs() >= bound))


@given(seeds, token_counts, st.sampled_from([1, 4, 48]))
def test_group_max_keeps_one_of_each_group(seed, n_tokens, k):
    pre = torch.randn(n_tokens, 48, generator=generator(seed))
    values, indices = group_max(pre, k)
    groups = pre.view(n_tokens, k, 48 // k)
    assert torch.equal(values, groups.amax(2))
    assert torch.equal(indices // (48 // k), torch.arange(k).expand(n_tokens, k))
    assert torch.equal(pre.gather(1, indices), values)


@given(seeds, token_counts)
def test_signed_slots_have_the_gradients_of_dense_autograd(seed, n_tokens):
    leaves = x, W_enc, b_enc, centre = draw(seed, n_tokens)
    buffer = torch.empty(4, 48, dtype=torch.float64)
    values, indices = encode_slots(
        x, W_enc, b_enc, lambda pre: abs_topk(pre, 3), centre=centre, buffer=buffer
    )
    pre = (x - centre) @ W_enc + b_enc
    wanted = pre * dense(torch.ones_like(values), indices, 48)
    torch.testing.assert_close(dense(values, indices, 48), wanted)
    fast = torch.autograd.grad(values.pow(3).sum(), leaves)
    slow = torch.autograd.grad(wanted.pow(3).sum(), leaves)
    for found, by_autograd in zip(fast, slow, strict=True):
        torch.testing.assert_close(found, by_autograd)


@given(seeds, token_counts)
def test_all_above_their_bounds_are_found_with_the_gradients_of_dense_autograd(seed, n_tokens):
    leaves = x, W_enc, b_enc, centre = draw(seed, n_tokens)
    bound = 9 + torch.rand(48, generator=generator(seed), dtype=torch.float64)
    buffer = torch.empty(4, 48, dtype=torch.float64)
    found = encode_above(x, W_enc, b_enc, bound, centre=centre, buffer=buffer)
    pre = (x - centre) @ W_enc + b_enc
    assert found is not None
    values, indices, offsets = found
    assert torch.equal(
        rows_of(offsets, len(values)) * 48 + indices, (pre > bound).flatten().nonzero()[:, 0]
    )
    wanted = pre * (pre > bound)
    torch.testing.assert_close(dense(*pad_bags(values, indices, offsets), 48), wanted)
    fast = torch.autograd.grad(values.pow(3).sum(), leaves)
    slow = torch.autograd.grad(wanted.pow(3).sum(), leaves)
    for one, by_autograd in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, by_autograd)


@given(seeds, token_counts, st.integers(1, 5))
def test_a_margin_below_the_bounds_is_looked_at_in_every_so_manieth_token(seed, n_tokens, stride):
    x, W_enc, b_enc, centre = draw(seed, n_tokens)
    bound = 9 + torch.rand(48, generator=generator(seed), dtype=torch.float64)
    found = encode_above(
        x, W_enc, b_enc, bound, centre=centre, buffer=torch.empty(3, 48, dtype=torch.float64),
        margin=0.5, stride=stride,
    )  # fmt: skip
    pre = (x - centre) @ W_enc + b_enc
    looked_at = torch.arange(n_tokens)[:, None] % stride == 0
    wanted = pre * (pre > torch.where(looked_at, bound - 0.5, bound))
    assert found is not None
    torch.testing.assert_close(dense(*pad_bags(*found), 48), wanted)


@pytest.mark.parametrize("stride", [2, 5])
def test_thinned_windows_move_thresholds_as_whole_ones_do_on_average(stride):
    # Every token comes as often as the stride is long, and is looked at once.
    x = torch.randn(12, 6, generator=generator(2), dtype=torch.float64)
    x = x.repeat_interleave(stride, dim=0)
    W_enc = torch.randn(6, 40, generator=generator(3), dtype=torch.float64)
    moved = []
    for window_stride in (1, stride):
        sparsifier = JumpReLUActivation(torch.full((40,), 4.0, dtype=torch.float64))
        batch = EncoderBatch(
            x=x,
            W_enc=W_enc,
            b_enc=torch.zeros(40, dtype=torch.float64),
            bandwidth=3.0,
            window_stride=window_stride,
        )
        codes = sparsifier.encode(batch)
        assert codes.indices is not None
        assert codes.active is not None
        weights = torch.linspace(-1, 2, 40, dtype=torch.float64)
        loss = (codes.weighted(weights) + codes.active).sum() + codes.values.square().sum()
        loss.backward()
        moved.append(sparsifier.threshold.grad)
    torch.testing.assert_close(moved[1], moved[0])


def test_a_crowded_batch_is_left_to_dense_products():
    x, W_enc, b_enc, _ = draw(0, 11)
    assert encode_above(x, W_enc, b_enc, torch.full((48,), -1e3, dtype=torch.float64)) is None


def test_the_jumps_gradients_are_those_of_the_paper():
    # Below, inside (on either side of the threshold) and above a window of 2 +- 0.25.
    z = torch.tensor([1.0, 1.8, 2.2, 3.0], dtype=torch.float64, requires_grad=True)
    theta = torch.full((4,), 2.0, dtype=torch.float64, requires_grad=True)
    values, active = jump(z, theta, 0.5)
    assert values.tolist() == [0, 0, 2.2, 3]
    assert active.tolist() == [0, 0, 1, 1]
    by_z, by_theta = torch.autograd.grad(values.sum(), [z, theta], retain_graph=True)
    assert by_z.tolist() == [0, 0, 1, 1]
    assert by_theta.tolist() == [0, -4, -4, 0]
    by_z, by_theta = torch.autograd.grad(active.sum(), [z, theta])
    assert by_z.tolist() == [0, 0, 0, 0]
    assert by_theta.tolist() == [0, -2, -2, 0]


@given(seeds, token_counts, st.sampled_from([(48,), (1, 48), (5, 6, 40, 48)]), st.booleans())
def test_nested_reconstructions_are_those_of_the_first_latents(seed, n_tokens, prefixes, bags):
    source = generator(seed)
    pre = torch.randn(n_tokens, 48, generator=source, dtype=torch.float64)
    weight = torch.randn(48, 6, generator=source, dtype=torch.float64, requires_grad=True)
    slots, indices = abs_topk(pre, 5)
    codes = dense(slots, indices, 48).requires_grad_()
    values = codes.gather(1, indices)
    if bags:
        starts = 5 * torch.arange(n_tokens)
        found = nested_decode(values.flatten(), indices.flatten(), weight, prefixes, starts)
    else:
        found = nested_decode(values, indices, weight, prefixes)
    wanted = torch.stack([codes[:, :m] @ weight[:m] for m in prefixes])
    torch.testing.assert_close(found, wanted)
    fast = torch.autograd.grad(found.pow(3).sum(), [weight, codes])
    slow = torch.autograd.grad(wanted.pow(3).sum(), [weight, codes])
    torch.testing.assert_close(fast[0], slow[0])
    # A latent that was not selected has no gradient, where the dense product has one.
    torch.testing.assert_close(fast[1], slow[1] * (codes != 0))


def test_nothing_selected_decodes_to_zero():
    weight = torch.ones(8, 2, requires_grad=True)
    empty = torch.zeros(0)
    nested = nested_decode(empty, empty.long(), weight, (3, 8), torch.zeros(4, dtype=torch.long))
    assert torch.equal(nested, torch.zeros(2, 4, 2))


@pytest.mark.parametrize("bandwidth", [0.1, 4.0])
def test_dense_and_selected_jumps_move_thresholds_alike(bandwidth):
    z = torch.randn(20, 7, generator=generator(1), dtype=torch.float64)
    theta = torch.rand(7, generator=generator(2), dtype=torch.float64, requires_grad=True)
    values, active = jump(z, theta, bandwidth)
    (by_dense,) = torch.autograd.grad(values.pow(2).sum() + active.sum(), theta)
    rows, columns = (z > theta - bandwidth / 2).nonzero().unbind(1)
    values, active = jump(z[rows, columns], theta.index_select(0, columns), bandwidth)
    (by_entry,) = torch.autograd.grad(values.pow(2).sum() + active.sum(), theta)
    torch.testing.assert_close(by_dense, by_entry)
