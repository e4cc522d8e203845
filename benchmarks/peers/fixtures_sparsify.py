"""Folders that EleutherAI's sparsify writes."""

import os
from pathlib import Path
from typing import Any

# Its Triton decoder needs an accelerator; the other one is its own, too.
os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import torch
from sparsify import SparseCoder, SparseCoderConfig

from benchmarks.peers.fixture_parts import WIDTH, D, K, inputs, randomise, save_expected

CODERS: dict[str, dict[str, Any]] = {
    "layers.3": {},
    "free_decoder": {"normalize_decoder": False},
    "by_expansion_factor": {"num_latents": 0, "expansion_factor": 2},
    "multi_topk": {"multi_topk": True},
    "groupmax": {"activation": "groupmax"},
    "skip": {"skip_connection": True},
    "layers.3.mlp": {"transcode": True},
    "layers.4.mlp": {"transcode": True, "skip_connection": True},
}


def write_all(folder: Path) -> None:
    """Write every folder."""
    for seed, (name, settings) in enumerate(CODERS.items(), start=4000):
        coder = SparseCoder(D, SparseCoderConfig(**{"num_latents": WIDTH, "k": K, **settings}))
        randomise(coder, seed)
        if coder.cfg.normalize_decoder:
            coder.set_decoder_norm_to_unit_norm()
        coder.save_to_disk(folder / name)
        _load_and_expect(folder / name)


def _load_and_expect(folder: Path) -> None:
    coder = SparseCoder.load_from_disk(folder)
    x = inputs()
    with torch.no_grad():
        values, indices, _ = coder.encode(x)
        features = torch.zeros(len(x), coder.num_latents).scatter_(1, indices, values)
        # With multi_topk the output of `forward` is that of 4 k latents, not of its codes.
        decoded = coder.decode(values, indices)
        if coder.W_skip is not None:
            decoded += x @ coder.W_skip.mT
        save_expected(folder, x, features, decoded)
