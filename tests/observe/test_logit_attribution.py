"""Logit attribution against finite differences of the model's own logits."""

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.observe.logit_attribution import logit_attribution, through_norm
from modelassay.subjects.load import load_subject

COMMON = {
    "vocab_size": 37, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=37, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    ),
    # The weight of its norm is 1 + the parameter.
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**COMMON, head_dim=8, final_logit_softcapping=None)
    ),
}


@pytest.fixture(params=list(MODELS), scope="module")
def subject(request):
    with torch.random.fork_rng():
        model = MODELS[request.param]()
    subject = load_subject(model)
    assert subject.final_norm is not None
    with torch.no_grad():
        for parameter in subject.final_norm.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator(3)) + 0.5)
    return subject


def test_equals_the_finite_difference_of_the_logits(subject):
    g = generator(0)
    directions = torch.randn(5, 16, generator=g)
    count = subject.vocab_size
    found = logit_attribution(subject, directions, count=count)
    for latent, direction in enumerate(directions):
        # A residual stream of mean 0 and root mean square 1, at right angles to the direction as
        # the norm sees it: there the norm's division does not change to first order.
        across = direction - direction.mean() if centres(subject) else direction
        basis = torch.stack([torch.ones(16), across]).T
        resid = torch.randn(16, generator=g)
        resid = resid - basis @ torch.linalg.lstsq(basis, resid[:, None]).solution[:, 0]
        resid = resid / resid.square().mean().sqrt()
        step = 0.01
        up = subject.logits_of(resid + step * direction)
        down = subject.logits_of(resid - step * direction)
        slope = (up - down) / (2 * step)
        slope = slope - slope.mean()
        table = torch.empty(count)
        table[found.promoted[latent]] = found.promoted_logits[latent]
        torch.testing.assert_close(table, slope, atol=2e-4, rtol=2e-3)


def centres(subject):
    return isinstance(subject.final_norm, nn.LayerNorm)


def test_promoted_and_suppressed_are_the_ends_of_one_order(subject):
    directions = torch.randn(7, 16, generator=generator(1))
    everything = logit_attribution(subject, directions, count=10_000)
    assert everything.promoted.shape == (7, 37)
    assert torch.equal(everything.promoted_logits, everything.suppressed_logits.flip(1))
    few = logit_attribution(subject, directions, count=4)
    assert torch.equal(few.promoted, everything.promoted[:, :4])
    assert torch.equal(few.suppressed, everything.suppressed[:, :4])
    assert (few.promoted_logits[:, 0] > 0).all()
    # Against the mean over the vocabulary, changes sum to zero.
    torch.testing.assert_close(everything.promoted_logits.sum(1), torch.zeros(7), atol=1e-5, rtol=0)


def test_opposite_directions_exchange_the_two_sides(subject):
    directions = torch.randn(3, 16, generator=generator(1))
    one, other = logit_attribution(subject, directions), logit_attribution(subject, -directions)
    assert torch.equal(one.promoted, other.suppressed)
    torch.testing.assert_close(one.promoted_logits, -other.suppressed_logits)


@pytest.mark.parametrize("width", [8, 9])
def test_norms_of_even_and_odd_width(width):
    directions = torch.randn(4, width, generator=generator(0))
    layer, root = nn.LayerNorm(width), nn.RMSNorm(width)
    weight = torch.rand(width, generator=generator(1)) + 0.5
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.fill_(3.0)
        root.weight.copy_(weight)
    centred = directions - directions.mean(1, keepdim=True)
    torch.testing.assert_close(
        through_norm(layer, directions), centred * weight, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        through_norm(root, directions), directions * weight, rtol=1e-4, atol=1e-5
    )
    plain = nn.LayerNorm(width, elementwise_affine=False)
    torch.testing.assert_close(through_norm(plain, directions), centred, rtol=1e-4, atol=1e-5)
    assert torch.equal(through_norm(None, directions), directions)


def test_directions_of_another_space_are_refused(subject):
    with pytest.raises(ShapeError, match="must have 16 components, the residual stream's; got 24"):
        logit_attribution(subject, torch.ones(2, 24))
