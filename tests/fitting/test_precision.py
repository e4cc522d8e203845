"""An encoder product in bfloat16 against the same step in float32."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    ReLUL1,
    TopK,
)
from modelassay.fitting.precision import encode_in_bfloat16, resolve_precision

D, WIDTH, K, TOKENS = 32, 256, 8, 100
COMPARING = [
    TopK(width=WIDTH, k=K),
    BatchTopK(width=WIDTH, k=K),
    AbsTopK(width=WIDTH, k=K),
    GroupMax(width=WIDTH, k=K),
]
SINGLE = [
    ReLUL1(width=WIDTH),
    JumpReLU(width=WIDTH, initial_threshold=0.06),  # crowded: the dense way
    JumpReLU(width=WIDTH, initial_threshold=1.7),  # sparse
]
ROUNDING = 2**-8  # of one bfloat16 number, relative


def dictionary_of(recipe: Recipe) -> Dictionary:
    generator = torch.Generator().manual_seed(1)
    dictionary = recipe.build(D, D, torch.full((D,), 0.5), generator, None)
    with torch.no_grad():
        dictionary.b_enc.add_(0.1 * torch.randn(WIDTH, generator=generator))
    return dictionary


def batch_of(dictionary: Dictionary, buffer: Tensor | None = None, **changes: Any) -> EncoderBatch:
    x = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(0)) + 0.5
    given: dict[str, Any] = {
        "x": x,
        "W_enc": dictionary.W_enc,
        "b_enc": dictionary.b_enc,
        "centre": dictionary.b_dec,
        "buffer": buffer,
        "bandwidth": 0.3,
    }
    return EncoderBatch(**given | changes)


def dense(codes: BatchCodes) -> Tensor:
    """Codes as a matrix of tokens and latents."""
    if codes.indices is None:
        return codes.values.detach()
    if codes.offsets is None:
        return torch.zeros(TOKENS, WIDTH).scatter_add(1, codes.indices, codes.values.detach())
    ends = torch.cat([codes.offsets[1:], torch.tensor([len(codes.values)])])
    rows = torch.arange(TOKENS).repeat_interleave(ends - codes.offsets)
    flat = torch.zeros(TOKENS * WIDTH)
    return flat.index_add(0, rows * WIDTH + codes.indices, codes.values.detach()).view(-1, WIDTH)


@pytest.mark.parametrize("recipe", COMPARING, ids=str)
def test_chosen_values_are_those_of_float32(recipe: Recipe):
    dictionary = dictionary_of(recipe)
    batch = batch_of(dictionary)
    pre = batch.pre_activations().detach()
    coarse = dense(encode_in_bfloat16(dictionary.activation, batch))
    exact = dense(dictionary.activation.encode(batch))
    active = coarse != 0
    assert torch.allclose(coarse[active], pre[active], rtol=1e-5, atol=1e-5)
    # Latents that were chosen in one precision alone are as large as the least chosen in both.
    differing = active != (exact != 0)
    assert differing.float().sum() <= 0.05 * active.sum()
    swapped = pre.abs()[active & differing]
    if len(swapped):
        # The sum of D rounded products errs by less than D times one rounding of the largest.
        largest = float(pre.abs().max())
        least = float(exact.abs()[exact != 0].min())
        assert float(swapped.min()) > least - 4 * ROUNDING * largest


@pytest.mark.parametrize("recipe", COMPARING, ids=str)
def test_gradients_are_those_of_float32_at_the_chosen_places(recipe: Recipe):
    dictionary = dictionary_of(recipe)
    codes = encode_in_bfloat16(dictionary.activation, batch_of(dictionary))
    codes.values.square().sum().backward()
    chosen = dense(codes) != 0
    found = {n: p.grad for n, p in dictionary.named_parameters() if p.grad is not None}
    dictionary.zero_grad()
    pre = batch_of(dictionary).pre_activations()
    (pre.square() * chosen).sum().backward()
    for name in ("W_enc", "b_enc", "b_dec"):
        expected = dictionary.get_parameter(name).grad
        assert found[name].dtype == torch.float32
        assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-3), name


@pytest.mark.parametrize("recipe", SINGLE, ids=str)
def test_codes_and_gradients_of_single_latents_agree_to_bfloat16s_rounding(recipe: Recipe):
    dictionary = dictionary_of(recipe)
    results = []
    for encode in (encode_in_bfloat16, lambda activation, batch: activation.encode(batch)):
        dictionary.zero_grad()
        codes = encode(dictionary.activation, batch_of(dictionary))
        codes.values.square().sum().backward()
        gradients = {n: p.grad for n, p in dictionary.named_parameters() if p.grad is not None}
        results.append((dense(codes), gradients))
    (coarse, rounded), (exact, expected) = results
    scale = float(exact.max())
    jumps = (coarse != 0) != (exact != 0)
    assert float(jumps.float().mean()) < 0.01
    assert float((coarse - exact)[~jumps].abs().max()) < 4 * ROUNDING * scale
    for name, gradient in expected.items():
        error = float((rounded[name] - gradient).norm() / gradient.norm())
        # Few entries lie within the bandwidth, and rounding moves some in or out.
        assert error < (0.15 if name == "activation.threshold" else 0.05), name
        assert rounded[name].dtype == torch.float32
        assert rounded[name].stride() == dictionary.get_parameter(name).stride()


def test_memory_for_pre_activations_is_used_for_twice_as_many_rows():
    dictionary = dictionary_of(COMPARING[0])
    buffer = torch.full((7, WIDTH), torch.nan)
    with_memory = encode_in_bfloat16(dictionary.activation, batch_of(dictionary, buffer))
    without = encode_in_bfloat16(dictionary.activation, batch_of(dictionary))
    assert torch.allclose(dense(with_memory), dense(without), rtol=1e-5, atol=1e-6)
    assert bool(buffer.view(torch.bfloat16).isfinite().all())


def test_k_of_a_schedule_is_kept():
    dictionary = dictionary_of(COMPARING[0])
    codes = encode_in_bfloat16(dictionary.activation, batch_of(dictionary, k=20))
    assert codes.values.shape == (TOKENS, 20)


def test_auto_is_float32_where_bfloat16_has_no_fast_products():
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
    assert resolve_precision("auto", torch.device("cuda")) == (
        "bfloat16"
        if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
        else "float32"
    )
    assert resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", [*COMPARING, *SINGLE], ids=str)
def test_codes_on_an_accelerator_are_those_of_the_cpu(recipe: Recipe):
    dictionary = dictionary_of(recipe)
    expected = dense(dictionary.activation.encode(batch_of(dictionary)))
    dictionary = dictionary.cuda()
    batch = batch_of(dictionary)
    codes = encode_in_bfloat16(
        dictionary.activation, batch_of(dictionary, x=batch.x.cuda(), centre=dictionary.b_dec)
    )
    codes.values.square().sum().backward()
    assert dictionary.W_enc.grad is not None
    assert bool(dictionary.W_enc.grad.isfinite().all())
    on_cpu = BatchCodes(
        values=codes.values.detach().cpu(),
        indices=None if codes.indices is None else codes.indices.cpu(),
        offsets=None if codes.offsets is None else codes.offsets.cpu(),
    )
    differing = (dense(on_cpu) != 0) != (expected != 0)
    assert float(differing.float().mean()) < 0.01
