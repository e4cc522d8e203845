"""What a folder of Llamascopium says, in one form for its dictionaries and transcoders.

``config.json`` and ``sae_weights.safetensors`` are the layout of Llamascopium 2 and, with older
names of the tensors, of Llama-Scope-R1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.decompositions.formats.foreign_files import (
    read_config_file,
    read_safetensors,
    refusal,
    whole_number,
)
from modelassay.decompositions.formats.hook_names import site_of_hook
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import (
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SHARDED = "sae_weights.dcp"
KIND = "Llamascopium"
NORMS = "dataset_average_activation_norm."
THRESHOLD = "activation_function.log_jumprelu_threshold"

# What acts on the forward pass, with the only value that is understood.
_FIXED: dict[str, tuple[object, str]] = {
    "use_glu_encoder": (False, "false: gated linear encoders have no form here"),
    "apply_decoder_bias_to_pre_encoder": (False, "false: the encoder sees the activations"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamascopiumConfig:
    """What the weights mean."""

    path: Path
    content: Mapping[str, Any]
    d: int
    """Width of the activations."""
    width: int
    """Number of latents of one layer."""
    act_fn: str
    """relu, jumprelu or topk."""
    scaled: bool
    """Whether the weights act on activations of mean length sqrt(d)."""
    by_decoder_norm: bool
    """Whether pre-activations are multiplied with their decoders' lengths for the choice."""
    decoder_bias: bool
    """Whether there is one."""

    def scale(self, norms: Mapping[str, Tensor], hook: str, weights_path: Path) -> float:
        """The factor of a hook's activations: ``sqrt(d)`` over their mean length.

        Raises:
            CorruptFileError: if the length is needed and missing, or no number above 0.
        """
        if not self.scaled:
            return 1.0
        norm = norms.get(hook)
        if norm is None or norm.numel() != 1 or not 0 < float(norm) < math.inf:
            raise CorruptFileError(
                f"{str(weights_path)!r}: the tensor {NORMS}{hook} must be there, a number above "
                f"0, as norm_activation is dataset-wise; got {None if norm is None else norm}. "
                "Fetch the folder again."
            )
        return math.sqrt(self.d) / float(norm)


def read_llamascopium_config(folder: Path, *, sae_type: str) -> LlamascopiumConfig:
    """Read and check ``config.json``.

    Raises:
        CorruptFileError: if it is missing or lacks a number.
        ValueRangeError: if it says what is not understood.
    """
    path = folder / CONFIG_FILE
    content = read_config_file(path, KIND)
    if content.get("sae_type", "sae") != sae_type:
        raise refusal(path, "sae_type", content.get("sae_type"), repr(sae_type))
    for key, (allowed, described) in _FIXED.items():
        if content.get(key, allowed) != allowed:
            raise refusal(path, key, content[key], described)
    act_fn = str(content.get("act_fn")).lower()
    if act_fn not in ("relu", "jumprelu", "topk"):
        raise refusal(
            path, "act_fn", content.get("act_fn"),
            "relu, jumprelu or topk: the others compare the tokens of a batch or the layers, and "
            "have no threshold for inference",
        )  # fmt: skip
    norm = content.get("norm_activation", "dataset-wise")
    if norm not in ("dataset-wise", "inference"):
        raise refusal(
            path, "norm_activation", norm, "dataset-wise or inference: tokens are not normalised"
        )
    by_decoder_norm = content.get("sparsity_include_decoder_norm")
    if not isinstance(by_decoder_norm, bool):
        raise CorruptFileError(
            f"{str(path)!r}: sparsity_include_decoder_norm must be true or false; got "
            f"{by_decoder_norm!r}. Without it the unit of the choice is not known."
        )
    d = whole_number(content, "d_model", path)
    factor = content.get("expansion_factor")
    if not isinstance(factor, int | float) or not d * factor >= 1:
        raise CorruptFileError(
            f"{str(path)!r}: expansion_factor must be a number; got {factor!r}. "
            "Fetch the folder again."
        )
    return LlamascopiumConfig(
        path=path,
        content=content,
        d=d,
        width=int(d * factor),
        act_fn=act_fn,
        scaled=norm == "dataset-wise",
        by_decoder_norm=by_decoder_norm,
        decoder_bias=bool(content.get("use_decoder_bias", True)),
    )


def read_llamascopium_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights, and the mean length of the activations at each hook.

    Raises:
        CorruptFileError: if the file is missing, truncated or sharded.
    """
    if not (folder / WEIGHTS_FILE).is_file() and (folder / SHARDED).exists():
        raise CorruptFileError(
            f"{str(folder)!r} must hold {WEIGHTS_FILE}; got {SHARDED}, shards of a distributed "
            "training. Save it as one file with its own library."
        )
    tensors = read_safetensors(folder / WEIGHTS_FILE, KIND)
    # Where no lengths were known the library stores numbers without meaning: they are looked at
    # only where the config says that they are used.
    norms = {k.removeprefix(NORMS): v for k, v in tensors.items() if k.startswith(NORMS)}
    return {k: v for k, v in tensors.items() if not k.startswith(NORMS)}, norms


def hook_site(config: LlamascopiumConfig, key: str, hook: object) -> Site:
    """The site of a hook.

    Raises:
        ValueRangeError: if it names no tensor that is the same here.
    """
    try:
        return site_of_hook(str(hook))
    except ValueRangeError as error:
        raise refusal(
            config.path, key, hook, "a hook of a site here; pass reads= and writes="
        ) from error


def folded(
    config: LlamascopiumConfig,
    weights: Mapping[str, Tensor],
    lengths: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Sparsifier, Tensor]:
    """One source's encoder for unscaled activations, its sparsifier, and a factor per decoder.

    With s the input's scale, n the decoders' lengths and the choice made on ``n z``: for latents
    that are chosen on their own, ``b <- b / s`` and ``threshold <- exp(log threshold) / (n s)``;
    for those that are compared, ``W <- n W``, ``b <- n b / s`` and decoders over n.

    Args:
        config: what the weights mean.
        weights: ``W_E`` [d, width], ``b_E`` and, for JumpReLU, the logarithm of the threshold.
        lengths: of each latent's decoder, over all its targets, as the file has it.
        scale: what the activations were multiplied with.

    Raises:
        ValueRangeError: if lengths are used and one is 0.
    """
    W_enc, b_enc = weights["W_E"], weights["b_E"] / scale
    norms = lengths if config.by_decoder_norm else torch.ones_like(lengths)
    if not bool((norms > 0).all()):
        raise ValueRangeError(
            f"{str(config.path)!r}: no latent's decoder may be zero where "
            f"sparsity_include_decoder_norm is true; got {int((norms == 0).sum())}. "
            "Values are divided by its length."
        )
    if config.act_fn == "topk":
        activation = TopKActivation(whole_number(config.content, "top_k", config.path))
        return W_enc * norms, b_enc * norms, activation, 1 / norms
    if config.act_fn == "relu":
        return W_enc, b_enc, ReLUActivation(), torch.ones_like(norms)
    threshold = weights[THRESHOLD].exp() / (norms * scale)
    return W_enc, b_enc, JumpReLUActivation(threshold), torch.ones_like(norms)
