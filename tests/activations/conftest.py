"""A tiny Llama with random weights and a byte tokenizer, built in process."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modelassay.activations.corpus import Corpus, Document
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and a BOS token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def tiny_llama(seed: int) -> LlamaForCausalLM:
    """Three layers, width 16, four heads; the weights are a function of the seed."""
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=None,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
    return model.eval()


@pytest.fixture
def make_subject() -> Callable[[int], Subject]:
    """A subject with its own weights, free to be broken."""
    return lambda seed: load_subject(tiny_llama(seed), tokenizer=byte_tokenizer())


@pytest.fixture(scope="session")
def subject() -> Subject:
    """A subject that no test changes."""
    return load_subject(tiny_llama(0), tokenizer=byte_tokenizer())


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Twelve documents of different lengths; every third is held out."""
    letters = random.Random(0)
    documents = [
        Document(
            name=f"text-{i}",
            text="".join(letters.choices("abc ö\n", k=17 * (i + 1))),
            split="heldout" if i % 3 == 2 else "fit",
        )
        for i in range(12)
    ]
    return Corpus(source="letters", documents=tuple(documents))


@pytest.fixture(scope="session")
def saved_subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The subject in a folder, for other processes."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(0).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
