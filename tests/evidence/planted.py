"""Small models and texts whose answers are known."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.activations.harvest import Harvest
from modelassay.core.randomness import generator
from modelassay.subjects.site import Site

SITE = Site("resid_post", 0)
IGNORED, LOUD = 0, 1
"""Neurons of `planted_subject` after its first block: read by nothing; read ten times as much."""


def random_contexts(
    n_documents: int, contexts_each: int, n_tokens: int, vocab: int, seed: int = 0
) -> TokenizedCorpus:
    """Random tokens; each context's first is not measured (as BOS is not), nor is the padding."""
    rng = generator(seed)
    documents = tuple(
        Document(name=str(i), text="x", split="heldout" if i % 2 else "fit")
        for i in range(n_documents)
    )
    n = n_documents * contexts_each
    tokens = torch.randint(1, vocab, (n, n_tokens), generator=rng)
    lengths = torch.randint(n_tokens * 3 // 4, n_tokens + 1, (n,), generator=rng)
    mask = torch.arange(n_tokens)[None] < lengths[:, None]
    measured = mask.clone()
    measured[:, 0] = False
    return TokenizedCorpus(
        corpus=Corpus(source="random tokens", documents=documents),
        tokens=tokens.masked_fill(~mask, 0),
        mask=mask,
        measured=measured,
        document=torch.arange(n_documents).repeat_interleave(contexts_each),
        spans=torch.full((n, n_tokens, 2), -1),
    )


def bare_harvest(contexts: TokenizedCorpus) -> Harvest:
    """A harvest without activations: only where its rows stand."""
    return Harvest(
        contexts=contexts, sites=(), subject_name="none", subject_fingerprint="", matrices={}
    )


def tiny_llama(*, norms: bool, seed: int = 0) -> LlamaForCausalLM:
    """Two blocks, 12 dimensions, 23 tokens; without norms, a direction can be ignored exactly."""
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        model = LlamaForCausalLM(config).eval()
    rng = generator(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=rng))
    if not norms:
        for block in model.model.layers:
            block.input_layernorm = block.post_attention_layernorm = torch.nn.Identity()
        model.model.norm = torch.nn.Identity()
    return model.requires_grad_(requires_grad=False)
