"""A SAELens folder's tensors: what must be there, and the sparsifier that they make."""

from pathlib import Path

import torch
from torch import Tensor

from modelassay.decompositions.formats.foreign_files import check_tensors, read_safetensors
from modelassay.decompositions.formats.saelens_config import SaeLensConfig
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.residual_pursuit import ResidualPursuitActivation
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)

WEIGHTS_FILE = "sae_weights.safetensors"
_BIASES = {"gated": ("b_gate", "b_mag", "r_mag"), "matching_pursuit": ()}


def read_weights(folder: Path, config: SaeLensConfig) -> dict[str, Tensor]:
    """All tensors of the folder, each checked for its place, shape and values.

    Raises:
        CorruptFileError: if the file is missing or truncated, or a tensor is missing.
        ShapeError: if a tensor has the wrong shape.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if there is a tensor that this reader does not know.
    """
    path = folder / WEIGHTS_FILE
    weights = read_safetensors(path, "SAELens")
    if config.architecture == "jumprelu" and "log_threshold" in weights:
        weights["threshold"] = weights.pop("log_threshold").exp()  # checkpoints of old versions
    wanted = {
        "W_enc": [config.d_in, config.d_sae],
        "W_dec": [config.d_sae, config.d_out],
        "b_dec": [config.d_out],
    }
    biases = _BIASES.get(config.architecture, ("b_enc",))
    if config.architecture == "matching_pursuit":
        del wanted["W_enc"]  # it is the decoder's transpose
    wanted |= {name: [config.d_sae] for name in biases}
    if config.skips:
        wanted["W_skip"] = [config.d_out, config.d_in]
    if config.architecture == "jumprelu":
        wanted["threshold"] = [config.d_sae]
    if config.architecture == "batchtopk":
        wanted["topk_threshold"] = []
    if config.finetuned_scale or _is_idle(weights.get("scaling_factor")):
        wanted["scaling_factor"] = [config.d_sae]
    checked = check_tensors(weights, wanted, path)
    if config.architecture == "gated":
        checked["b_enc"] = checked["b_gate"]  # the gate is the pre-activation
    if config.architecture == "matching_pursuit":
        decoder = checked["W_dec"]
        checked |= {"W_enc": decoder.t(), "b_enc": decoder.new_zeros(config.d_sae)}
        if not config.apply_b_dec_to_input:
            checked["b_dec"] = torch.zeros_like(checked["b_dec"])  # then it is not added either
    return checked


def _is_idle(factor: Tensor | None) -> bool:
    """Whether old folders' factor per latent is there and all ones: it was stored unused."""
    return factor is not None and bool((factor == 1).all())


def activation_of(config: SaeLensConfig, weights: dict[str, Tensor]) -> Sparsifier:
    """The sparsifier that the config names."""
    match config.architecture:
        case "standard":
            return ReLUActivation()
        case "topk":
            return TopKActivation(config.k or 1)
        case "abstopk":
            return AbsTopKActivation(config.k or 1)
        case "batchtopk":
            return BatchTopKActivation(config.k or 1, float(weights["topk_threshold"]))
        case "jumprelu":
            return JumpReLUActivation(weights["threshold"])
        case "gated":
            gain = weights["r_mag"]
            return GatedActivation(gain, weights["b_mag"] - gain.exp() * weights["b_gate"])
        case "matching_pursuit":
            return ResidualPursuitActivation(
                config.k or 1, config.residual, ends_at_repeats=config.ends_at_repeats
            )
