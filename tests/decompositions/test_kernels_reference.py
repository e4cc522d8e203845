"""Every implementation of the sparse kernels against slow dense ones in float64.

Inputs are small whole numbers and halves, so that ties and exact zeros abound and all types of
numbers compute the same selection. Where Triton is installed but no accelerator is there, run

    TRITON_INTERPRET=1 python -m pytest tests/decompositions/test_kernels_reference.py
"""

import importlib.util
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.decompositions.encoders import encode_above, encode_slots, jump
from modelassay.decompositions.kernels import encode_batch_topk, encode_topk, sparse_decode
from modelassay.decompositions.kernels_interface import using_kernels
from modelassay.decompositions.nested import nested_decode
from modelassay.decompositions.selection import above, abs_topk, group_max, rows_of, topk

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs the package triton"
)
implementations = pytest.mark.parametrize(
    ("implementation", "device"),
    [
        pytest.param("torch", "cpu", id="torch"),
        pytest.param(
            "triton",
            "cpu",
            id="interpreted triton",
            marks=[
                needs_triton,
                pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1"),
            ],
        ),
        pytest.param(
            "triton",
            "cuda",
            id="triton",
            marks=[
                pytest.mark.gpu,
                needs_triton,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
                pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 is set"),
            ],
        ),
    ],
)
BANDWIDTH = 3.0
# The interpreter takes a thousand times as long as a program that is compiled.
thoroughly = settings(max_examples=8 if INTERPRETED else 25)


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64), widths=(1, 5, 48, 160)):
    """Leaves of a dictionary on some tokens, in a type and a memory layout."""
    return Problem(
        source=generator(draw(st.integers(0, 2**32))),
        n_tokens=draw(st.sampled_from([0, 1, 5])),
        width=draw(st.sampled_from(widths)),
        dtype=draw(st.sampled_from(dtypes)),
        flipped=draw(st.booleans()),
        # All pre-activations are then negative, or exactly 0.
        bias=draw(st.sampled_from([0, 0, -100, None])),
    )


class Problem:
    """A dictionary and activations of whole numbers and halves."""

    def __init__(self, source, n_tokens, width, dtype, flipped, bias, d=3):
        def whole(rows, columns):
            shape = (columns, rows) if flipped else (rows, columns)
            matrix = torch.randint(-2, 3, shape, generator=source).to(dtype)
            return matrix.t() if flipped else matrix

        self.dtype, self.width, self.n_tokens = dtype, width, n_tokens
        self.x, self.W_enc = whole(n_tokens, d), whole(d, width)
        self.W_dec, self.weights = whole(width, d + 1), whole(n_tokens, d + 1)
        self.b_enc = torch.zeros(width, dtype=dtype)
        if bias is None:
            self.W_enc = torch.zeros_like(self.W_enc)
        else:
            self.b_enc += bias
        self.centre = whole(1, d)[0] / 2
        self.threshold = torch.randint(1, 4, (width,), generator=source).to(dtype)

    def __repr__(self):
        return (
            f"{self.n_tokens} tokens, width {self.width}, {self.dtype}, b_enc from "
            f"{self.b_enc.min()}, W_enc with strides {self.W_enc.stride()}"
        )

    def leaves(self, dtype=None, device="cpu"):
        names = ("x", "W_enc", "b_enc", "centre", "W_dec", "threshold")
        return [getattr(self, n).to(device, dtype or self.dtype).requires_grad_() for n in names]

    def dense(self, active):
        """Loss and gradients with dense products in float64, given which latents are active."""
        leaves = x, W_enc, b_enc, centre, W_dec, _ = self.leaves(torch.float64)
        codes = ((x - centre) @ W_enc + b_enc) * active
        loss = self.loss(codes @ W_dec)
        return [loss, *torch.autograd.grad(loss, leaves[:5])]

    def loss(self, reconstruction):
        # Every entry of the gradient differs, and is a whole number or a half in all types.
        return (reconstruction * self.weights.to(reconstruction)).sum()

    def pre(self):
        x, W_enc, b_enc, centre, _, _ = (leaf.detach() for leaf in self.leaves(torch.float64))
        return (x - centre) @ W_enc + b_enc


def assert_same(found, wanted):
    for fast, slow in zip(found, wanted, strict=True):
        torch.testing.assert_close(fast.cpu().double(), slow, rtol=1e-6, atol=1e-6)


def with_gradients(problem, reconstruction, leaves):
    loss = problem.loss(reconstruction)
    return [loss.detach(), *torch.autograd.grad(loss, leaves[:5])]


def mask_of(values, indices, offsets, shape):
    """1 where a value other than 0 was selected, after asserting that nothing is there twice."""
    if offsets is None:
        rows = torch.arange(shape[0]).unsqueeze(1).expand(indices.shape)
    else:
        rows = rows_of(offsets.cpu(), values.numel())
    kept = values.detach().cpu() != 0
    places = list(zip(rows[kept].tolist(), indices.cpu()[kept].tolist(), strict=True))
    assert len(set(places)) == len(places)
    mask = torch.zeros(shape, dtype=torch.float64)
    for row, column in places:
        mask[row, column] = 1
    return mask


@implementations
@thoroughly
@given(problem=problems(), k=st.sampled_from([1, 3, 300]))
def test_topk_and_its_gradients(implementation, device, problem, k):
    leaves = x, W_enc, b_enc, centre, W_dec, _ = problem.leaves(device=device)
    with using_kernels(implementation):
        values, indices = encode_topk(x, W_enc, b_enc, k, centre=centre)
        found = with_gradients(problem, sparse_decode(values, indices, W_dec), leaves)
    pre = problem.pre()
    active = mask_of(values, indices, None, pre.shape)
    for row in range(problem.n_tokens):
        best = sorted((max(z, 0.0) for z in pre[row].tolist()), reverse=True)[:k]
        assert sorted(values[row].tolist(), reverse=True) == best
    assert_same(found, problem.dense(active))


@implementations
@thoroughly
@given(problem=problems(), k=st.sampled_from([1, 3, 300]))
def test_batch_topk_and_its_gradients(implementation, device, problem, k):
    leaves = x, W_enc, b_enc, centre, W_dec, _ = problem.leaves(device=device)
    with using_kernels(implementation):
        values, indices, offsets = encode_batch_topk(x, W_enc, b_enc, k, centre=centre)
        found = with_gradients(problem, sparse_decode(values, indices, W_dec, offsets), leaves)
    pre = problem.pre()
    best = sorted((z for z in pre.flatten().tolist() if z > 0), reverse=True)
    assert sorted(values.tolist(), reverse=True) == best[: k * problem.n_tokens]
    assert_same(found, problem.dense(mask_of(values, indices, offsets, pre.shape)))


@implementations
@thoroughly
@given(problem=problems(), k=st.sampled_from([1, 3, 300]))
def test_abs_topk_and_its_gradients(implementation, device, problem, k):
    leaves = x, W_enc, b_enc, centre, W_dec, _ = problem.leaves(device=device)
    with using_kernels(implementation):
        values, indices = encode_slots(x, W_enc, b_enc, lambda pre: abs_topk(pre, k), centre=centre)
        found = with_gradients(problem, sparse_decode(values, indices, W_dec), leaves)
    pre = problem.pre()
    for row in range(problem.n_tokens):
        best = sorted(map(abs, pre[row].tolist()), reverse=True)[:k]
        assert sorted(values[row].abs().tolist(), reverse=True) == best
    assert_same(found, problem.dense(mask_of(values, indices, None, pre.shape)))


@implementations
@thoroughly
@given(problem=problems(widths=(4, 48, 160)), k=st.sampled_from([1, 2, 4]))
def test_group_max_and_its_gradients(implementation, device, problem, k):
    def select(pre):
        values, indices = group_max(pre, k)
        return values.relu(), indices

    leaves = x, W_enc, b_enc, centre, W_dec, _ = problem.leaves(device=device)
    with using_kernels(implementation):
        values, indices = encode_slots(x, W_enc, b_enc, select, centre=centre)
        found = with_gradients(problem, sparse_decode(values, indices, W_dec), leaves)
    pre = problem.pre()
    size = problem.width // k
    for row in range(problem.n_tokens):
        for group in range(k):
            best = max(pre[row, group * size : (group + 1) * size].tolist())
            assert values[row, group].item() == max(best, 0.0)
    assert_same(found, problem.dense(mask_of(values, indices, None, pre.shape)))


def jump_relu(pre, threshold):
    """Values and steps of JumpReLU, dense, with the gradients that `jump` documents."""
    active = (pre > threshold).double().detach()
    within = ((pre - threshold).abs() < BANDWIDTH / 2).double().detach() / BANDWIDTH
    moved = threshold - threshold.detach()  # 0, with the gradient of the threshold
    return pre * active - moved * (threshold.detach() * within), active - moved * within


@implementations
@thoroughly
@given(problem=problems())
def test_jump_relu_and_its_gradients(implementation, device, problem):
    problem.b_enc -= 1  # or most would pass, and dense products be preferred
    leaves = x, W_enc, b_enc, centre, W_dec, threshold = problem.leaves(device=device)
    with using_kernels(implementation):
        bound = threshold.detach() - BANDWIDTH / 2
        selected = encode_above(x, W_enc, b_enc, bound, centre=centre)
        if selected is None:
            assert (problem.pre() > bound.cpu()).double().mean() > 0.1
            return
        pre, indices, offsets = selected
        values, active = jump(pre, threshold.index_select(0, indices), BANDWIDTH)
        loss = problem.loss(sparse_decode(values, indices, W_dec, offsets)) + active.sum()
        found = [loss.detach(), *torch.autograd.grad(loss, leaves)]
    leaves = x, W_enc, b_enc, centre, W_dec, threshold = problem.leaves(torch.float64)
    values, active = jump_relu((x - centre) @ W_enc + b_enc, threshold)
    loss = problem.loss(values @ W_dec) + active.sum()
    assert_same(found, [loss.detach(), *torch.autograd.grad(loss, leaves)])


@implementations
@thoroughly
@given(problem=problems(widths=(5, 48)), bags=st.booleans())
def test_nested_decoding_and_its_gradients(implementation, device, problem, bags):
    leaves = x, W_enc, b_enc, centre, W_dec, _ = problem.leaves(device=device)
    prefixes = (1, 4, problem.width)
    with using_kernels(implementation):
        offsets = None
        if bags:
            values, indices, offsets = encode_batch_topk(x, W_enc, b_enc, 2, centre=centre)
        else:
            values, indices = encode_topk(x, W_enc, b_enc, 2, centre=centre)
        nested = nested_decode(values, indices, W_dec, prefixes, offsets)
        loss = sum(problem.loss(part) * (i + 1) for i, part in enumerate(nested))
        found = [loss.detach(), *torch.autograd.grad(loss, leaves[:5])]
    active = mask_of(values, indices, offsets, (problem.n_tokens, problem.width))
    leaves = x, W_enc, b_enc, centre, W_dec, _ = problem.leaves(torch.float64)
    codes = ((x - centre) @ W_enc + b_enc) * active
    loss = sum(problem.loss(codes[:, :m] @ W_dec[:m]) * (i + 1) for i, m in enumerate(prefixes))
    assert_same(found, [loss.detach(), *torch.autograd.grad(loss, leaves[:5])])


@implementations
@thoroughly
@given(problem=problems(), shared_bound=st.booleans())
def test_above_finds_every_entry_that_exceeds_its_bound(
    implementation, device, problem, shared_bound
):
    pre = problem.pre().to(device, problem.dtype)
    pre = pre.t().contiguous().t() if problem.n_tokens % 2 else pre
    bound = 1.5 if shared_bound else problem.threshold.to(device)
    bounds = [1.5] * problem.width if shared_bound else problem.threshold.tolist()
    with using_kernels(implementation):
        values, indices, offsets = above(pre, bound)
    rows = rows_of(offsets, values.numel())
    assert list(zip(rows.tolist(), indices.tolist(), values.tolist(), strict=True)) == [
        (row, column, value)
        for row, numbers in enumerate(pre.tolist())
        for column, value in enumerate(numbers)
        if value > bounds[column]
    ]


@implementations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_topk_of_special_numbers(implementation, device, dtype):
    infinity = float("inf")
    rows = [
        [-infinity, -0.0, 0.0, 1e-30, infinity],
        [-infinity] * 5,
        [-3.0, -1.0, -2.0, -1.0, -infinity],
        [3e38, -3e38, 3e38, 0.0, 3e38],
    ]
    pre = torch.tensor(rows, dtype=dtype, device=device)
    for k in range(1, 6):
        with using_kernels(implementation):
            values, indices = topk(pre, k)
        assert torch.equal(values.sort(descending=True).values, pre.topk(k).values)
        assert torch.equal(pre.gather(1, indices), values)
        assert all(len(set(row)) == k for row in indices.tolist())


@implementations
@pytest.mark.parametrize("width", [4000, 4096])
@pytest.mark.parametrize("k", [1, 40, 3999])
def test_topk_of_rows_longer_than_a_block(implementation, device, width, k):
    pre = torch.randn(3, width, generator=generator(width)).to(device)
    with using_kernels(implementation):
        values, indices = topk(pre, k)
    assert torch.equal(values.sort(descending=True).values, pre.topk(k).values)
    assert torch.equal(pre.gather(1, indices), values)
    assert all(len(set(row)) == k for row in indices.tolist())


@implementations
@thoroughly
@given(problem=problems(dtypes=(torch.bfloat16, torch.float16)), k=st.sampled_from([1, 30]))
def test_half_precision_accumulates_in_single(implementation, device, problem, k):
    # The products of these whole numbers are exact; only the results are rounded.
    _, _, _, _, W_dec, _ = problem.leaves(device=device)
    weights = problem.weights.to(device)
    pre = problem.pre().to(device, problem.dtype)
    with using_kernels(implementation) as kernels:
        values, indices = topk(pre, k)
        decoded = sparse_decode(values, indices, W_dec).detach()
        products = kernels.sampled_products(weights, W_dec.detach(), indices, None)
        sums = kernels.sum_by_latent(values, indices, weights, problem.width, None)
    assert {t.dtype for t in (values, decoded, products, sums)} == {problem.dtype}
    codes = torch.zeros(pre.shape, dtype=torch.float64)
    codes.scatter_(1, indices.cpu(), values.cpu().double())
    rows, tokens = problem.W_dec.double(), problem.weights.double()
    for found, wanted in (
        (decoded, codes @ rows),
        (products, (tokens @ rows.t()).gather(1, indices.cpu())),
        (sums, codes.t() @ tokens),
    ):
        epsilon = torch.finfo(problem.dtype).eps
        torch.testing.assert_close(found.cpu().double(), wanted, rtol=epsilon, atol=1e-6)


@implementations
def test_a_backward_pass_uses_the_kernels_of_its_forward_pass(implementation, device):
    weight = torch.ones(4, 3, device=device, requires_grad=True)
    values = torch.tensor([[1.0, 2.0]], device=device, requires_grad=True)
    indices = torch.tensor([[0, 3]], device=device)
    with using_kernels(implementation):
        decoded = sparse_decode(values, indices, weight)
    with using_kernels("torch"):
        decoded.sum().backward()
    assert decoded.grad_fn.kernels.__class__.__name__.lower() == f"{implementation}kernels"
    assert values.grad.tolist() == [[3, 3]]
    assert weight.grad[:, 0].tolist() == [1, 0, 0, 2]
