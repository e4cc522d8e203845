"""The sizes of a model, from its configuration: no weight is read."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from modelassay.core.errors import UnknownNameError, UnsupportedModelError
from modelassay.fitting.forecast_job import ModelShape
from modelassay.subjects.load import BUNDLED
from modelassay.subjects.site import Site

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_RESIDUAL_WIDTH = (
    "resid_pre",
    "attn_in",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_out",
    "resid_post",
)
"""Roles as wide as the residual stream."""


def model_shape(source: str | Path) -> ModelShape:
    """The sizes of a causal language model that transformers knows.

    It is built on torch's `meta` device, which holds shapes and no numbers.

    Args:
        source: "bundled", a folder with a `config.json`, or a Hugging Face id.

    Raises:
        UnknownNameError: if there is no such folder, and no model of the id could be found.
        UnsupportedModelError: if its blocks cannot be told, or not all its weights are used for
            every token.
    """
    folder = BUNDLED if source == "bundled" else Path(source).expanduser()
    local = folder.is_dir()
    try:
        config = AutoConfig.from_pretrained(
            str(folder if local else source), local_files_only=local
        )
    except (OSError, ValueError) as error:
        unknown = UnknownNameError("Model", str(source), ["bundled"])
        unknown.message += (
            f" It is no folder with a configuration that transformers knows, and no such model "
            f"could be found: {str(error).splitlines()[0]} "
            "Or give its sizes with --parameters, --d-model and --layers."
        )
        raise unknown from error
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    text: Any = config.get_text_config()
    if any((getattr(text, name, None) or 1) > 1 for name in _EXPERTS):
        raise _refusal(source, "experts of which a token uses some")
    blocks = _blocks(module, text.num_hidden_layers)
    if blocks is None:
        raise _refusal(source, f"no list of {text.num_hidden_layers} blocks")
    heads: int = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        name="bundled" if source == "bundled" else folder.resolve().name if local else str(source),
        d_model=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=heads,
        block_parameters=sum(p.numel() for p in blocks.parameters() if p.ndim > 1),
        parameters=sum(p.numel() for p in module.parameters()),
        attention_width=heads * head_width,
    )


def blocks_until(site: Site, layers: int) -> int:
    """How many blocks run until a site is reached; one that is entered counts as a whole.

    Raises:
        UnsupportedModelError: if the site is not as wide as the residual stream.
        UnknownNameError: if the model has no such layer.
    """
    if site.role not in _RESIDUAL_WIDTH:
        raise UnsupportedModelError(
            f"The site of a forecast must be as wide as the residual stream; got {site}. "
            f"Choose one of {', '.join(_RESIDUAL_WIDTH)}."
        )
    if not 0 <= site.layer < layers:
        raise UnknownNameError("Layer", str(site.layer), map(str, range(layers)))
    return site.layer + (site.role != "resid_pre")


def _blocks(module: nn.Module, layers: int) -> nn.ModuleList | None:
    """The list of as many modules as there are layers that holds most parameters."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    fitting = [part for part in lists if len(part) == layers]
    return max(fitting, key=lambda part: sum(p.numel() for p in part.parameters()), default=None)


def _refusal(source: str | Path, found: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "A forecast must know the weights that a token uses from a model's configuration; got "
        f"{str(source)!r} with {found}. Give --parameters (those used, without embeddings), "
        "--d-model and --layers instead."
    )
