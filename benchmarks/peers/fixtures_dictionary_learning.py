"""Folders that dictionary_learning writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dictionary_learning.dictionary import AutoEncoderNew, JumpReluAutoEncoder
from dictionary_learning.trainers import (
    BatchTopKTrainer,
    GatedSAETrainer,
    JumpReluTrainer,
    PAnnealTrainer,
    StandardTrainer,
    TopKTrainer,
)
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.training import trainSAE
from dictionary_learning.utils import load_dictionary

from benchmarks.peers.fixture_parts import WIDTH, D, K, draws, inputs, randomise, save_expected

STEPS = 6
_PENALISED = {"warmup_steps": 1, "sparsity_warmup_steps": 1, "lr": 0.02}
_SELECTED = {"k": K, "warmup_steps": 1, "threshold_start_step": 0, "lr": 0.02}


def _drawn_jumprelu(activation_dim: int, dict_size: int, device: str) -> JumpReluAutoEncoder:
    """Its trainer seeds nothing, unlike the others."""
    autoencoder = JumpReluAutoEncoder(activation_dim, dict_size, device)
    randomise(autoencoder, activation_dim)
    return autoencoder


TRAINERS: dict[str, dict[str, Any]] = {
    "standard": {"trainer": StandardTrainer, **_PENALISED},
    "standard_april": {"trainer": StandardTrainerAprilUpdate, **_PENALISED},
    # At its default p_end of 0 the library divides by it.
    "p_anneal": {
        "trainer": PAnnealTrainer, "anneal_start": 2, "n_sparsity_updates": 2, "p_end": 0.5,
        **_PENALISED,
    },
    "gated": {"trainer": GatedSAETrainer, **_PENALISED},
    "jumprelu": {"trainer": JumpReluTrainer, "dict_class": _drawn_jumprelu, **_PENALISED},
    "topk": {"trainer": TopKTrainer, **_SELECTED},
    "topk_without_threshold": {
        "trainer": TopKTrainer,
        **_SELECTED,
        "threshold_start_step": STEPS,
    },
    "batchtopk": {"trainer": BatchTopKTrainer, **_SELECTED},
    "batchtopk_without_threshold": {
        "trainer": BatchTopKTrainer,
        **_SELECTED,
        "threshold_start_step": STEPS,
    },
    "matryoshka": {
        "trainer": MatryoshkaBatchTopKTrainer,
        "group_fractions": [0.25, 0.25, 0.5],
        **_SELECTED,
    },
}  # fmt: skip
SCALED = ("standard_april", "jumprelu", "batchtopk", "matryoshka")
"""Also trained on activations of unit mean square, which the library folds when it saves."""


def write_all(folder: Path) -> None:
    """Write every folder."""
    for seed, (name, settings) in enumerate(TRAINERS.items(), start=2000):
        _train(folder / name, settings, seed, scaled=False)
        if name in SCALED:
            _train(folder / f"{name}_scaled", settings, seed, scaled=True)
    _write_new(folder / "auto_encoder_new", 3000)


def _train(folder: Path, settings: dict[str, Any], seed: int, *, scaled: bool) -> None:
    """A few steps of the library's own loop, which writes the folder."""
    common = {
        "steps": STEPS, "activation_dim": D, "dict_size": WIDTH, "layer": 3, "lm_name": "gpt2",
        "device": "cpu", "seed": seed, "submodule_name": "resid_post_layer_3",
    }  # fmt: skip
    trainSAE(
        _Batches(seed),
        [common | settings],
        steps=STEPS,
        save_dir=str(folder),
        normalize_activations=scaled,
        device="cpu",
    )
    (folder / "trainer_0" / "ae.pt").rename(folder / "ae.pt")
    (folder / "trainer_0" / "config.json").rename(folder / "config.json")
    (folder / "trainer_0").rmdir()
    _load_and_expect(folder)


class _Batches:
    """Activations, with the config that the library's buffer has."""

    config = {"d_submodule": D, "io": "out"}  # noqa: RUF012 (the library reads an attribute)

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = draws(self.seed)
        while True:
            yield 2 * torch.randn(64, D, generator=generator) + 0.5


def _write_new(folder: Path, seed: int) -> None:
    """AutoEncoderNew has no trainer that names it, so its config is written here."""
    autoencoder = AutoEncoderNew(D, WIDTH)
    randomise(autoencoder, seed)
    folder.mkdir(parents=True)
    torch.save(autoencoder.state_dict(), folder / "ae.pt")
    trainer = {
        "dict_class": "AutoEncoderNew", "activation_dim": D, "dict_size": WIDTH, "layer": 3,
        "submodule_name": "resid_post_layer_3",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    _load_and_expect(folder)


def _load_and_expect(folder: Path) -> None:
    # The loader checks its own folding on global random numbers; they change nothing.
    autoencoder, _ = load_dictionary(str(folder), device="cpu")
    x = inputs()
    with torch.no_grad():
        save_expected(folder, x, autoencoder.encode(x), autoencoder(x))
