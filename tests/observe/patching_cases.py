"""Small models and pairs that the tests of patching and steering share."""

import torch

from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.observe.patching_pairs import PromptPairs
from modelassay.subjects.site import Site


def random_pairs(n_pairs: int = 6, n_tokens: int = 7, *, vocab: int = 60, seed: int = 0):
    """Pairs that differ at position 2 only."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(1, vocab, (n_pairs, n_tokens), generator=generator)
    corrupt = clean.clone()
    corrupt[:, 2] = (clean[:, 2] % (vocab - 1)) + 1
    choices = torch.stack([torch.randperm(vocab, generator=generator)[:2] for _ in range(n_pairs)])
    return PromptPairs(
        clean=clean,
        corrupt=corrupt,
        lengths=torch.full((n_pairs,), n_tokens),
        answers=choices[:, :1],
        wrong=choices[:, 1:],
    )


def random_dictionary(width: int, d: int, site: Site, *, seed: int = 0) -> Dictionary:
    """A ReLU dictionary with weights of its own, which reconstructs badly: the error is large."""
    generator = torch.Generator().manual_seed(seed)
    return Dictionary(
        W_enc=torch.randn(d, width, generator=generator) / d**0.5,
        b_enc=0.1 * torch.randn(width, generator=generator),
        W_dec=torch.nn.functional.normalize(torch.randn(width, d, generator=generator), dim=1),
        b_dec=0.1 * torch.randn(d, generator=generator),
        activation=ReLUActivation(),
        reads=site,
        writes=site,
    )


def modular_addition_pairs(n_pairs: int = 24, *, seed: int = 0) -> PromptPairs:
    """a + b = against c + b = modulo 113: only the first summand differs."""
    generator = torch.Generator().manual_seed(seed)
    a, b, shift = (torch.randint(113, (n_pairs,), generator=generator) for _ in range(3))
    c = (a + 1 + shift % 112) % 113
    equals = torch.full((n_pairs,), 113)
    return PromptPairs(
        clean=torch.stack([a, b, equals], 1),
        corrupt=torch.stack([c, b, equals], 1),
        lengths=torch.full((n_pairs,), 3),
        answers=((a + b) % 113)[:, None],
        wrong=((c + b) % 113)[:, None],
    )
