"""Seeded generators; nothing global is ever seeded."""

import hashlib

import torch


def generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator with the given seed."""
    return torch.Generator(device=device).manual_seed(seed)


def derived(seed: int, *words: str | int) -> torch.Generator:
    """A generator of its own for a named purpose.

    The words are hashed, so the draws of one step do not move when another step is added.
    """
    key = hashlib.sha256(repr((seed, *words)).encode()).digest()
    return generator(int.from_bytes(key[:7], "big"))
