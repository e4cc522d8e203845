"""Widening changes no logit, and is refused where it would."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import tiny_model
from modelassay.testbeds.planted.widening import widened

TOKENS = torch.randint(2048, (3, 40), generator=generator(1))


def biased_llama() -> LlamaForCausalLM:
    """Grouped queries, and a bias wherever the family can have one."""
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=True, mlp_bias=True,
        max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        model = LlamaForCausalLM(config).eval()
    rng = generator(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=rng) + 0.1)
    return model.requires_grad_(requires_grad=False)


def test_the_logits_stay(subject: Subject):
    twin = widened(subject.module, 12, generator(0)).module
    before, after = subject.module(TOKENS).logits, twin(TOKENS).logits
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


@pytest.mark.parametrize("model", [tiny_model("llama").eval(), biased_llama()])
def test_the_logits_stay_in_double_precision(model: LlamaForCausalLM):
    model = copy.deepcopy(model).double()
    tokens = TOKENS[:, :20] % model.config.vocab_size
    before = model(tokens).logits
    after = widened(model, model.config.num_attention_heads, generator(0)).module(tokens).logits
    # The family's norm computes in float32 whatever the model's type.
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


def test_the_stream_is_the_old_one_in_another_basis(subject: Subject):
    wide = widened(subject.module, 12, generator(0))
    axes = torch.cat([wide.original, wide.private])
    assert torch.allclose(axes @ axes.T, torch.eye(140), atol=1e-5)
    site = Site("resid_post", 3)
    old = subject.run(TOKENS, read=[site], until=site).activations[site]
    new = load_subject(wide.module).run(TOKENS, read=[site], until=site).activations[site]
    assert torch.allclose(new @ wide.original.T, old, atol=1e-4 * float(old.abs().max()))
    assert (new @ wide.private.T).abs().max() < 1e-4 * old.abs().max()


def test_the_widened_model_is_left_alone_and_the_generator_decides(subject: Subject):
    before = subject.fingerprint()
    state = torch.random.get_rng_state()
    one, two = (widened(subject.module, 4, generator(seed)).module for seed in (0, 0))
    other = widened(subject.module, 4, generator(1)).module
    assert subject.fingerprint() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.lm_head.weight, two.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_a_widened_model_can_be_saved_and_loaded(subject: Subject, tmp_path: Path):
    twin = widened(subject.module, 12, generator(0)).module
    twin.save_pretrained(tmp_path)
    loaded = load_subject(tmp_path).module
    assert torch.allclose(loaded(TOKENS).logits, twin(TOKENS).logits, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_a_model_that_is_no_llama_is_refused(family: str):
    with pytest.raises(UnsupportedModelError, match="LlamaForCausalLM with SwiGLU; got"):
        widened(tiny_model(family), 4, generator(0))


@pytest.mark.parametrize("extra", [0, 3])
def test_a_width_that_does_not_suit_the_heads_is_refused(subject: Subject, extra: int):
    with pytest.raises(ValueRangeError, match=rf"a multiple of the 4 heads; got {extra}\. Take 4"):
        widened(subject.module, extra, generator(0))
