"""Read dictionaries of Llama Scope: JumpReLU with one threshold, on scaled activations.

A folder holds ``hyperparams.json`` and ``checkpoints/final.safetensors`` with ``encoder.weight``
[width, d], ``encoder.bias``, ``decoder.weight`` [d, width] and ``decoder.bias``. The weights act on
``s * x`` with ``s = sqrt(d) / n``, n the mean length of the activations; the threshold is in units
of the unscaled activations, that is, of values divided by s. Folders of later releases have a
``config.json``: `llamascopium` reads them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_config_file,
    read_safetensors,
    refusal,
    whole_number,
)
from modelassay.decompositions.formats.hook_names import site_of_hook
from modelassay.decompositions.formats.llamascopium import read_llamascopium
from modelassay.decompositions.formats.llamascopium_config import CONFIG_FILE as LATER_CONFIG
from modelassay.decompositions.formats.llamascopium_config import WEIGHTS_FILE as LATER_WEIGHTS
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.subjects.site import Site

CONFIG_FILE = "hyperparams.json"
WEIGHTS_FILE = "final.safetensors"
_KIND = "Llama Scope"
_UNIT = 0.02  # how far a half-precision row's length may be from 1 (ours)


def read_llama_scope(folder: str | Path, *, site: Site | None = None) -> Dictionary:
    """Read a folder with ``hyperparams.json`` and ``checkpoints/final.safetensors``.

    The scale is folded: ``b_enc, b_dec <- each / s``, weights unchanged. Values are then in units
    of the unscaled activations, as the threshold is. A folder with ``config.json`` instead is one
    of a later release and read as such.

    Args:
        folder: one dictionary's folder.
        site: where the dictionary belongs; None reads the hook's name.

    Raises:
        CorruptFileError: if a file or tensor is missing or truncated.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if the config says what this reader does not understand, for example
            that it is a transcoder.
    """
    folder = Path(folder)
    later = any((folder / name).exists() for name in (LATER_CONFIG, LATER_WEIGHTS))
    if later and not (folder / CONFIG_FILE).is_file():
        return read_llamascopium(folder, reads=site)
    config_path, path = folder / CONFIG_FILE, folder / "checkpoints" / WEIGHTS_FILE
    config = read_config_file(config_path, _KIND)
    _check_config(config, config_path)
    d = whole_number(config, "d_model", config_path)
    width = whole_number(config, "d_sae", config_path)
    scale = math.sqrt(d) / _number(_norms(config, config_path)["in"], config_path, "… norm.in")
    threshold = _number(config.get("jump_relu_threshold"), config_path, "jump_relu_threshold")
    wanted = {
        "encoder.weight": [width, d],
        "encoder.bias": [width],
        "decoder.weight": [d, width],
        "decoder.bias": [d],
    }
    weights = check_tensors(read_safetensors(path, _KIND), wanted, path)
    if config.get("sparsity_include_decoder_norm"):
        _require_unit_rows(weights["decoder.weight"].t(), path)
    dictionary = assemble(
        weights["encoder.weight"].t(),
        weights["encoder.bias"],
        weights["decoder.weight"].t(),
        weights["decoder.bias"],
        JumpReLUActivation(torch.full((width,), threshold * scale)),
        subtracts=bool(config.get("apply_decoder_bias_to_pre_encoder", False)),
        reads=site_of_hook(str(config["hook_point_in"])) if site is None else site,
    )
    dictionary.fold_input_scale(scale)
    return dictionary


def _check_config(config: Mapping[str, Any], path: Path) -> None:
    expected = {
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "use_decoder_bias": True,
        "use_glu_encoder": False,
    }
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise refusal(path, key, config[key], repr(value))
    if "hook_point_in" not in config:
        raise CorruptFileError(
            f"{str(path)!r} must have the key 'hook_point_in'; got {', '.join(config)}. "
            "Fetch the folder again."
        )
    if config.get("hook_point_out", config["hook_point_in"]) != config["hook_point_in"]:
        raise refusal(
            path, "hook_point_out", config["hook_point_out"],
            f"{config['hook_point_in']}: a transcoder's input here is before its norm's gain",
        )  # fmt: skip


def _norms(config: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    norms = config.get("dataset_average_activation_norm")
    if not isinstance(norms, Mapping) or "in" not in norms:
        raise CorruptFileError(
            f"{str(path)!r}: dataset_average_activation_norm must hold the entry 'in'; got "
            f"{norms!r}. Without it the scale of the activations is not known."
        )
    return norms


def _number(value: object, path: Path, key: str) -> float:
    if not isinstance(value, int | float) or not value > 0:
        raise CorruptFileError(
            f"{str(path)!r}: {key} must be a number above 0; got {value!r}. Fetch the folder again."
        )
    return float(value)


def _require_unit_rows(W_dec: Tensor, path: Path) -> None:
    off = int(((W_dec.norm(dim=1) - 1).abs() > _UNIT).sum())
    if off:
        raise ValueRangeError(
            f"{str(path)!r}: columns of decoder.weight must be of length 1 where "
            f"sparsity_include_decoder_norm is true; got {off} that are not. The threshold's "
            "unit would not be known: fold the lengths first."
        )
