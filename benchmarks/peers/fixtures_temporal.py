"""Folders of temporal SAEs, as their authors lay them out, with what SAELens computes from them.

SAELens reads these files and writes none: the weights of its own class are written here, read back
by its own loader (which asks the hub for a file; here it is told where the file lies), and run.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig
from safetensors.torch import save_file

from benchmarks.peers.fixture_parts import D, K, draws, randomise

WIDTH, CONTEXTS, TOKENS = 48, 3, 5
SHARED: dict[str, Any] = {
    "exp_factor": WIDTH / D,
    "n_heads": 2,
    "n_attn_layers": 1,
    "bottleneck_factor": 4,
    "sae_diff_type": "topk",
    "kval_topk": K,
    "tied_weights": True,
    "scaling_factor": 0.25,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied_weights": False, "scaling_factor": 1.0},
    "relu": {"sae_diff_type": "relu", "kval_topk": None},
    "two_layers": {"n_attn_layers": 2},
}


def write_all(folder: Path) -> None:
    """Write every variant."""
    for seed, (name, own) in enumerate(VARIANTS.items()):
        _write(folder / "layer_3" / name, SHARED | own, seed)


def _write(folder: Path, settings: dict[str, Any], seed: int) -> None:
    folder.mkdir(parents=True)
    conf = {"llm": {"dimin": D}, "sae": settings, "data": {"dtype": "float32"}}
    (folder / "conf.yaml").write_text(yaml.safe_dump(conf), "utf-8")
    drawn = TemporalSAE(TemporalSAEConfig.from_dict(_config(folder)))
    randomise(drawn, 200 + seed)
    names = {"W_dec": "D", "b_dec": "b", "W_enc": "E"}
    state = {names.get(k, k): v.detach().contiguous() for k, v in drawn.state_dict().items()}
    save_file(state, folder / "latest_ckpt.safetensors")

    with patch.object(loaders, "hf_hub_download", lambda filename, **_: filename):
        config, weights, _ = loaders.temporal_sae_huggingface_loader("", str(folder))
    sae = TemporalSAE(TemporalSAEConfig.from_dict(config))
    sae.load_state_dict(weights)
    x = 2 * torch.randn(CONTEXTS, TOKENS, D, generator=draws(300 + seed)) + 0.5
    with torch.no_grad():
        novel, predicted = sae.encode_with_predictions(x)
        reconstruction = sae(x)
    tensors = {"x": x, "novel": novel, "predicted": predicted, "reconstruction": reconstruction}
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "outputs.safetensors")


def _config(folder: Path) -> dict[str, Any]:
    with patch.object(loaders, "hf_hub_download", lambda filename, **_: filename):
        return loaders.get_temporal_sae_config_from_hf("", str(folder), "cpu")
