"""Tiny random models of every family that we verify, built in process for tests."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from modelassay.core.errors import UnknownNameError
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

VOCAB_SIZE, CONTEXT_TOKENS, N_LAYERS, N_HEADS, D_MODEL = 67, 32, 2, 4, 32

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "max_position_embeddings": CONTEXT_TOKENS,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Grouped queries, heads that do not fill the stream, and a window shorter than the contexts.
_GROUPED: dict[str, Any] = {**_COMMON, "num_key_value_heads": 2}
_WINDOWED: dict[str, Any] = {**_GROUPED, "head_dim": 6, "sliding_window": 4}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "n_embd": D_MODEL,
    "n_layer": N_LAYERS,
    "n_head": N_HEADS,
    "n_positions": CONTEXT_TOKENS,
}

_FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT2)),
    "gpt_neo": lambda: transformers.GPTNeoForCausalLM(
        transformers.GPTNeoConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=D_MODEL,
            num_layers=N_LAYERS,
            num_heads=N_HEADS,
            attention_types=[[["global", "local"], N_LAYERS // 2]],
            window_size=4,
            max_position_embeddings=CONTEXT_TOKENS,
        )
    ),
    "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**_COMMON)),
    "gpt_neox_sequential": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**_COMMON, use_parallel_residual=False)
    ),
    "gptj": lambda: transformers.GPTJForCausalLM(transformers.GPTJConfig(**_GPT2, rotary_dim=4)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_GROUPED)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**_WINDOWED)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_GROUPED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**_GROUPED, head_dim=6)
    ),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**_WINDOWED)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**_WINDOWED)),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=D_MODEL,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            ffn_dim=48,
            max_position_embeddings=CONTEXT_TOKENS,
            word_embed_proj_dim=D_MODEL,
        )
    ),
    "phi": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**_COMMON)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**_GROUPED)),
    "bloom": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(
            vocab_size=VOCAB_SIZE, hidden_size=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS
        )
    ),
    "falcon": lambda: transformers.FalconForCausalLM(
        transformers.FalconConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=D_MODEL,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
        )
    ),
    "cohere": lambda: transformers.CohereForCausalLM(transformers.CohereConfig(**_GROUPED)),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**_GROUPED, num_local_experts=4)
    ),
    "olmo2": lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**_GROUPED)),
}

FAMILIES = tuple(_FAMILIES)
"""Names of the families whose roles resolve and verify."""


def tiny_model(family: str, seed: int = 0) -> nn.Module:
    """A random two-layer model of a family, in training mode and with dropout, as it is built.

    Every weight is moved off its initial value, so that no bias is 0 and no norm's gain is 1.

    Raises:
        UnknownNameError: no such family.
    """
    if family not in _FAMILIES:
        raise UnknownNameError("Family", family, FAMILIES)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.set_rng_state(generator.get_state())
        model = _FAMILIES[family]()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_subject(family: str = "llama", seed: int = 0) -> Subject:
    """A verified subject around `tiny_model`, without a tokenizer."""
    return load_subject(tiny_model(family, seed))
