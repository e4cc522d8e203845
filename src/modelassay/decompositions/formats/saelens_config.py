"""What a SAELens folder's ``cfg.json`` says, in one form for all versions; the rest is refused."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.core.files import read_json

CONFIG_FILE = "cfg.json"
SCALER_FILE = "activation_scaler.json"

Architecture = Literal[
    "standard", "topk", "batchtopk", "abstopk", "jumprelu", "gated", "matching_pursuit"
]
_ARCHITECTURES = (
    "standard", "topk", "batchtopk", "abstopk", "jumprelu", "gated", "matching_pursuit",
)  # fmt: skip
_TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_NESTED = "matryoshka_batchtopk"  # in checkpoints; at inference it is batchtopk

# Version 6 and later: what acts on the forward pass, and what is known not to. Any other key
# might change the meaning of the weights.
_MEANINGFUL = {
    "architecture", "d_in", "d_out", "d_sae", "k", "rescale_acts_by_decoder_norm",
    "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "metadata",
    "residual_threshold", "max_iterations", "stop_on_duplicate_support",
}  # fmt: skip
_HARMLESS = {
    "dtype", "device", "sae_lens_version", "decoder_init_norm", "l1_coefficient", "lp_norm",
    "l1_warm_up_steps", "use_sparse_activations", "aux_loss_coefficient", "topk_threshold_lr",
    "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale", "jumprelu_ste_to_input", "l0_coefficient", "l0_warm_up_steps",
    "pre_act_loss_coefficient", "target_l0", "matryoshka_widths", "use_matryoshka_aux_loss",
}  # fmt: skip

# Before version 6 the file was flat and some names differed.
_OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn": "activation_fn_str",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SaeLensConfig:
    """What the weights mean."""

    architecture: Architecture
    d_in: int
    """Width of the activations."""
    d_out: int
    """Width of the reconstructions."""
    d_sae: int
    """Number of latents."""
    k: int | None
    """Active latents per token, for topk, batchtopk and abstopk; rounds of a matching pursuit."""
    residual: float
    """Length of the residual below which a matching pursuit ends; 0 for all its k rounds."""
    ends_at_repeats: bool
    """Whether a matching pursuit ends with the first round that adds no new latent."""
    rescale_by_decoder_norm: bool
    """Whether pre-activations are multiplied with the decoder's norms before the choice."""
    apply_b_dec_to_input: bool
    input_scale: float
    """What activations are multiplied with before encoding."""
    finetuned_scale: bool
    """Whether a factor per latent is applied before decoding (old folders)."""
    transcodes: bool
    """Whether it reconstructs another site than it reads."""
    skips: bool
    """Whether there is a linear path beside the latents."""
    hook_name: str | None
    hook_name_out: str | None
    """What a transcoder's reconstructions stand for."""
    centred: bool
    """Whether TransformerLens centred the residual stream that it was fitted on."""
    training_architecture: str | None


def read_config(folder: Path) -> SaeLensConfig:
    """Read ``cfg.json`` of any version.

    Raises:
        CorruptFileError: if the file or a key that it must have is missing.
        ValueRangeError: if it says something that this reader does not understand.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CorruptFileError(
            f"A SAELens folder must hold {CONFIG_FILE}; got none in {str(folder)!r}. "
            "Check the path: every dictionary has a folder of its own."
        )
    content = read_json(path)
    content = _of_version_6(content, path) if "metadata" in content else _flat(content)
    content.setdefault("d_out", content.get("d_in"))
    for key in ("d_in", "d_out", "d_sae"):
        if not isinstance(content.get(key), int):
            raise CorruptFileError(
                f"{str(path)!r}: {key} must be a whole number; got {content.get(key)!r}. "
                "Fetch the folder again."
            )
    return _understood(content, folder)


def _of_version_6(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    for key in content:
        if key not in _MEANINGFUL | _HARMLESS:
            raise _refusal(path, key, content[key], "a key that this reader knows")
    return {**content["metadata"], **content}


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """The old form's facts under version 6's names; its many training settings mean nothing."""
    flat = {_OLD_NAMES.get(key, key): value for key, value in content.items()}
    if flat.get("activation_fn_str") == "topk" and flat.get("architecture") != "gated":
        # TopK was first an activation function of the standard architecture.
        flat |= {"architecture": "topk", "k": (flat.get("activation_fn_kwargs") or {}).get("k")}
    if "hook_z" in (flat.get("hook_name") or ""):
        flat.setdefault("reshape_activations", "hook_z")
    return {"architecture": "standard", **flat}


def _understood(content: Mapping[str, Any], folder: Path) -> SaeLensConfig:
    path = folder / CONFIG_FILE
    named = content.get("architecture")
    architecture = "batchtopk" if named == _NESTED else _TRANSCODERS.get(str(named), named)
    if architecture not in _ARCHITECTURES:
        known = ", ".join((*_ARCHITECTURES, _NESTED, *_TRANSCODERS))
        raise _refusal(path, "architecture", architecture, f"one of {known}")
    transcodes = named in _TRANSCODERS
    scale = _input_scale(content.get("normalize_activations"), folder)
    if scale != 1 and transcodes:
        raise _refusal(path, "normalize_activations", scale, "none: a transcoder's output has none")
    wanted = {
        "activation_fn_str": (None, "relu", "topk"),
        "reshape_activations": (None, "none"),
        "hook_head_index": (None,),
    }
    for key, allowed in wanted.items():
        if content.get(key) not in allowed:
            raise _refusal(path, key, content[key], f"one of {allowed}")
    k = content.get("k")
    if architecture in ("topk", "batchtopk", "abstopk") and not (
        isinstance(k, int | float) and k >= 1
    ):
        raise _refusal(path, "k", k, "a number of at least 1")
    if architecture == "matching_pursuit":
        k = _rounds(content, path)
    kwargs: Mapping[str, Any] = content.get("model_from_pretrained_kwargs") or {}
    return SaeLensConfig(
        architecture=architecture,
        d_in=content["d_in"],
        d_out=content["d_out"],
        d_sae=content["d_sae"],
        k=None if k is None else round(k),
        # That library's defaults, where a config leaves them out.
        residual=max(0.0, float(content.get("residual_threshold", 1e-2))),
        ends_at_repeats=bool(content.get("stop_on_duplicate_support", True)),
        rescale_by_decoder_norm=bool(content.get("rescale_acts_by_decoder_norm", False)),
        apply_b_dec_to_input=bool(content.get("apply_b_dec_to_input", True)),
        input_scale=scale,
        finetuned_scale=bool(content.get("finetuning_scaling_factor", False)),
        transcodes=transcodes,
        skips=transcodes and "skip" in str(named),
        hook_name=content.get("hook_name"),
        hook_name_out=content.get("hook_name_out"),
        centred=bool(kwargs.get("center_writing_weights", False)),
        training_architecture=content.get("training_architecture", named),
    )


def _rounds(content: Mapping[str, Any], path: Path) -> int:
    """The most rounds of a matching pursuit: as many as dimensions, if nothing is said."""
    rounds = content.get("max_iterations")
    rounds = content["d_in"] if rounds is None else rounds
    if not (isinstance(rounds, int) and rounds >= 1):
        raise _refusal(path, "max_iterations", rounds, "a whole number of at least 1, or null")
    residual = content.get("residual_threshold", 1e-2)
    if not (isinstance(residual, int | float) and math.isfinite(residual)):
        raise _refusal(path, "residual_threshold", residual, "a finite number")
    return rounds


def _input_scale(normalisation: object, folder: Path) -> float:
    """What activations are multiplied with: 1, or the factor that a checkpoint keeps beside."""
    # Older folders said True or False.
    if normalisation in (None, False, "none"):
        return 1.0
    if normalisation is not True and normalisation != "expected_average_only_in":
        raise _refusal(
            folder / CONFIG_FILE, "normalize_activations", normalisation,
            "none or expected_average_only_in, which are linear",
        )  # fmt: skip
    scaler = folder / SCALER_FILE
    scale = read_json(scaler).get("scaling_factor") if scaler.is_file() else None
    if not (isinstance(scale, int | float) and scale > 0):
        raise ValueRangeError(
            f"{str(folder / CONFIG_FILE)!r}: normalize_activations is {normalisation!r}, so "
            f"{SCALER_FILE} must hold a scaling_factor above 0; got {scale!r}. "
            "Export the dictionary with its scale folded, or fetch the whole checkpoint."
        )
    return float(scale)


def _refusal(path: Path, key: str, found: object, expected: str) -> ValueRangeError:
    return ValueRangeError(
        f"{str(path)!r}: {key} must be {expected}; got {found!r}. "
        "Its meaning is not known here, and guessing it would give wrong numbers."
    )
