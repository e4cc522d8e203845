"""Folders that SAELens writes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import save_file

from benchmarks.peers.fixture_parts import WIDTH, D, K, draws, inputs, randomise, save_expected

HOOK = "blocks.3.hook_resid_post"
SIZES = {"d_in": D, "d_sae": WIDTH}

# Class and settings of what is written by `save_model`, for inference.
INFERENCE: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("StandardSAE", {}),
    "standard_plain_input": ("StandardSAE", {"apply_b_dec_to_input": False}),
    "standard_layer_norm": ("StandardSAE", {"normalize_activations": "layer_norm"}),
    "topk": ("TopKSAE", {"k": K}),
    "topk_rescaled": ("TopKSAE", {"k": K, "rescale_acts_by_decoder_norm": True}),
    "abstopk": ("AbsTopKSAE", {"k": K, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": ("JumpReLUSAE", {}),
    "gated": ("GatedSAE", {}),
    "matching_pursuit": ("MatchingPursuitSAE", {"residual_threshold": 0.1}),
    "transcoder": ("Transcoder", {"apply_b_dec_to_input": False, "d_out": D - 3}),
    "skip_transcoder": ("SkipTranscoder", {"apply_b_dec_to_input": False, "d_out": D - 3}),
    "jumprelu_transcoder": ("JumpReLUTranscoder", {"apply_b_dec_to_input": False, "d_out": D}),
    "jumprelu_skip_transcoder": (
        "JumpReLUSkipTranscoder",
        {"apply_b_dec_to_input": False, "d_out": D},
    ),
}

# Class and settings of what a training writes: at its end by `save_inference_model`, in between
# by `save_checkpoint`.
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "trained_standard": ("Standard", {"l1_coefficient": 0.1}),
    "trained_topk": ("TopK", {"k": K}),
    "trained_abstopk": ("AbsTopK", {"k": K}),
    "trained_batchtopk": ("BatchTopK", {"k": K}),
    "trained_jumprelu": ("JumpReLU", {"jumprelu_init_threshold": 0.3}),
    "trained_gated": ("Gated", {}),
    "trained_matryoshka": ("MatryoshkaBatchTopK", {"k": K, "matryoshka_widths": [6, 12, WIDTH]}),
    "trained_scaled": (
        "BatchTopK",
        {"k": K, "normalize_activations": "expected_average_only_in"},
    ),
    "trained_whitened": ("TopK", {"k": K, "normalize_activations": "covariance_whitening"}),
}

# Configs of versions before 6, as their flat files were; each is read back by the library.
OLD: dict[str, dict[str, Any]] = {
    "old_standard": {"hook_point": HOOK, "hook_point_layer": 3, "dtype": "float32"},
    "old_topk": {
        "hook_name": HOOK,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": "none",
        "dtype": "float32",
        "architecture": "standard",
    },
}


# What was added later: with seeds of its own, so that the others stay as they are.
PURSUITS: dict[str, dict[str, Any]] = {
    "matching_pursuit_of_rounds": {
        "residual_threshold": 0.0,
        "max_iterations": 3,
        "stop_on_duplicate_support": False,
        "apply_b_dec_to_input": False,
    },
    "matching_pursuit_with_repeats": {
        "residual_threshold": 1.0,
        "max_iterations": 9,
        "stop_on_duplicate_support": False,
    },
}
TRAINED_PURSUIT = {
    "residual_threshold": 0.3,
    "max_iterations": 5,
    "normalize_activations": "expected_average_only_in",
}


def write_all(folder: Path) -> None:
    """Write every folder."""
    seeds = iter(range(100, 1000))
    for name, (class_name, settings) in INFERENCE.items():
        _write_for_inference(folder / name, class_name, settings, next(seeds))
    for name, (class_name, settings) in TRAINED.items():
        _write_trained(folder, name, class_name, settings, next(seeds))
    for name, config in OLD.items():
        _write_old(folder / name, config, next(seeds))
    write_pursuits(folder)


def write_pursuits(folder: Path) -> None:
    """Matching pursuits with each of their rules for ending, and a training of one."""
    for seed, (name, settings) in enumerate(PURSUITS.items(), start=1000):
        _write_for_inference(folder / name, "MatchingPursuitSAE", settings, seed)
    name = "trained_matching_pursuit"
    _write_trained(folder, name, "MatchingPursuit", TRAINED_PURSUIT, 1100)


def _load_and_expect(folder: Path) -> None:
    """What the library computes from the folder as it lies there."""
    sae = sae_lens.SAE.load_from_disk(folder)
    x = inputs()
    with torch.no_grad():
        save_expected(folder, x, sae.encode(x), sae(x))


def _write_for_inference(
    folder: Path, class_name: str, settings: dict[str, Any], seed: int
) -> None:
    written = {"hook_name_out": "blocks.4.hook_mlp_out"} if "d_out" in settings else {}
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK, model_name="gpt2", **written)
    config = getattr(sae_lens, f"{class_name}Config")(**SIZES, **settings, metadata=metadata)
    sae = getattr(sae_lens, class_name)(config)
    randomise(sae, seed)
    sae.save_model(folder)
    _load_and_expect(folder)


def _write_trained(
    folder: Path, name: str, class_name: str, settings: dict[str, Any], seed: int
) -> None:
    """A few steps of the library's own trainer, its checkpoint, and its export."""
    config_class: Callable[..., Any] = getattr(sae_lens, f"{class_name}TrainingSAEConfig")
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK, model_name="gpt2")
    sae = getattr(sae_lens, f"{class_name}TrainingSAE")(
        config_class(**SIZES, **settings, metadata=metadata)
    )
    randomise(sae, seed)
    trainer_config = SAETrainerConfig(
        total_training_samples=4 * 64,
        train_batch_size_samples=64,
        lr=0.01,
        lr_end=0.001,
        n_batches_for_norm_estimate=4,
        n_checkpoints=1,
        checkpoint_path=str(folder / f"{name}_checkpoints"),
    )
    SAETrainer(trainer_config, sae, _batches(seed)).fit()
    sae.save_inference_model(folder / name)
    _load_and_expect(folder / name)
    _keep_checkpoint(folder / f"{name}_checkpoints", folder / f"{name}_checkpoint", class_name)


def _keep_checkpoint(written: Path, kept: Path, class_name: str) -> None:
    """The checkpoint without its trainer's state, and what its weights mean at inference."""
    (checkpoint,) = written.iterdir()
    for unread in ("trainer_state.pt", "sparsity.safetensors"):
        (checkpoint / unread).unlink(missing_ok=True)
    checkpoint.rename(kept)
    written.rmdir()
    sae = getattr(sae_lens, f"{class_name}TrainingSAE").load_from_disk(kept)
    scaler = sae_lens.training.activation_scaler.ActivationScaler()
    scaler.load(kept / "activation_scaler.json")
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if scaler.whitening is not None:
        whitening = scaler.whitening
        sae.fold_activation_whitening(
            mean=whitening.mean,
            whitening_matrix=whitening.matrix,
            unwhitening_matrix=whitening.inverse_matrix,
        )
    exported = kept / "exported"
    sae.save_inference_model(exported)
    _load_and_expect(exported)
    (exported / "expected.safetensors").rename(kept / "expected.safetensors")
    for path in exported.iterdir():
        path.unlink()
    exported.rmdir()


def _batches(seed: int) -> Iterator[torch.Tensor]:
    generator = draws(seed)
    while True:
        yield 2 * torch.randn(64, D, generator=generator) + 0.5


def _write_old(folder: Path, config: dict[str, Any], seed: int) -> None:
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({**SIZES, **config}))
    sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(**SIZES))
    randomise(sae, seed)
    save_file(sae.state_dict(), folder / "sae_weights.safetensors")
    _load_and_expect(folder)
