"""Runs of a context's later tokens on the kept keys and values of the earlier ones."""

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache

from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

KeysAndValues = list[tuple[Tensor, Tensor]]
"""Per block, [context, head, token, d_head] each."""


def takes_keys_and_values(subject: Subject) -> bool:
    """Whether the model can go on from kept keys and values, and gives the same.

    It is tried: what a model computes of a text's last tokens must not depend on whether the first
    ones were run with them or before them.
    """
    if "past_key_values" not in inspect.signature(subject.module.forward).parameters:
        return False
    n_tokens = min(12, subject.context_tokens)
    tokens = torch.arange(n_tokens, device=subject.device)[None] * 7 % subject.vocab_size
    last, half = Site("resid_post", subject.n_layers - 1), n_tokens // 2
    whole = subject.run(tokens, read=[last], until=last).activations[last][:, half:]
    past = [(k[:, :, :half], v[:, :, :half]) for k, v in keys_and_values(subject, tokens)]
    with continuing(subject, past):
        suffix = subject.run(tokens[:, half:], read=[last], until=last).activations[last]
    return bool(((suffix - whole).abs() <= 1e-4 * whole.abs().max()).all())


def keys_and_values(subject: Subject, tokens: Int[Tensor, "context token"]) -> KeysAndValues:
    """The keys and values of all blocks on some contexts.

    Padding on the right needs no mask: nothing before it looks at it.
    """
    cache = DynamicCache()
    last = Site("resid_post", subject.n_layers - 1)
    with _given(subject, cache):
        subject.run(tokens, until=last)
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


@contextmanager
def continuing(subject: Subject, past: KeysAndValues) -> Generator[None]:
    """Within it, every run's tokens stand behind those whose keys and values these are."""
    cache = DynamicCache()
    for block, (keys, values) in enumerate(past):
        cache.update(keys, values, block)
    with _given(subject, cache):
        yield


@contextmanager
def _given(subject: Subject, cache: DynamicCache) -> Generator[None]:
    def give(_module: Any, args: Any, options: dict[str, Any]) -> Any:
        return args, {**options, "past_key_values": cache, "use_cache": True}

    handle = subject.module.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
