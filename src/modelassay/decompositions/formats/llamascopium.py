"""Read dictionaries and transcoders of Llamascopium 2 and Llama-Scope-R1.

A folder holds ``config.json`` and ``sae_weights.safetensors``: ``W_E`` [d, width], ``b_E``, ``W_D``
[width, d], ``b_D``, for JumpReLU ``activation_function.log_jumprelu_threshold`` [width], and
``dataset_average_activation_norm.HOOK`` [], n. The weights act on ``sqrt(d) / n * x``. In R1 the
tensors have the names ``encoder.weight`` [width, d], ``encoder.bias``, ``decoder.weight`` [d,
width], ``decoder.bias`` and ``log_jumprelu_threshold``.
"""

from pathlib import Path

import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble, require_both_sites
from modelassay.decompositions.formats.foreign_files import check_tensors
from modelassay.decompositions.formats.llamascopium_config import (
    THRESHOLD,
    WEIGHTS_FILE,
    LlamascopiumConfig,
    folded,
    hook_site,
    read_llamascopium_config,
    read_llamascopium_weights,
)
from modelassay.subjects.site import Site

# R1's name -> today's, and whether it is transposed.
_OLD_NAMES = {
    "encoder.weight": ("W_E", True),
    "encoder.bias": ("b_E", False),
    "decoder.weight": ("W_D", True),
    "decoder.bias": ("b_D", False),
    "log_jumprelu_threshold": (THRESHOLD, False),
}


def read_llamascopium(
    folder: str | Path, *, reads: Site | None = None, writes: Site | None = None
) -> Dictionary:
    """Read a folder with ``config.json`` and ``sae_weights.safetensors``.

    Scales of the activations and decoders' lengths are folded, exactly.

    Args:
        folder: one dictionary's folder.
        reads: where the activations stand; None reads the hook's name.
        writes: likewise for what the reconstructions stand for; None means the same as `reads`
            where that is given and the hooks are one.

    Raises:
        CorruptFileError: if a file or tensor is missing or truncated.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if the config says what this reader does not understand.
    """
    folder = Path(folder)
    config = read_llamascopium_config(folder, sae_type="sae")
    hook_in, hook_out = _hooks(config)
    transcodes = hook_in != hook_out
    if reads is None:
        reads = hook_site(config, "hook_point_in", hook_in)
        writes = writes or hook_site(config, "hook_point_out", hook_out)
    if transcodes:
        require_both_sites(reads, writes, folder)
    tensors, norms = read_llamascopium_weights(folder)
    path = folder / WEIGHTS_FILE
    weights = _weights(config, tensors, path)
    scale_in, scale_out = (config.scale(norms, hook, path) for hook in (hook_in, hook_out))
    lengths = weights["W_D"].norm(dim=1)
    W_enc, b_enc, activation, factors = folded(config, weights, lengths, scale=scale_in)
    return assemble(
        W_enc,
        b_enc,
        weights["W_D"] * factors.unsqueeze(1) * (scale_in / scale_out),
        weights["b_D"] / scale_out,
        activation,
        subtracts=False,
        reads=reads,
        writes=writes,
    )


def _hooks(config: LlamascopiumConfig) -> tuple[str, str]:
    for key in ("hook_point_in", "hook_point_out"):
        if not isinstance(config.content.get(key), str):
            raise CorruptFileError(
                f"{str(config.path)!r} must have the key {key!r}, a hook's name; got "
                f"{config.content.get(key)!r}. Fetch the folder again."
            )
    return config.content["hook_point_in"], config.content["hook_point_out"]


def _weights(
    config: LlamascopiumConfig, tensors: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors by today's names, checked by the names that they have in the file."""
    d, width = config.d, config.width
    shapes = {"W_E": [d, width], "b_E": [width], "W_D": [width, d]}
    if config.decoder_bias:
        shapes["b_D"] = [d]
    if config.act_fn == "jumprelu":
        shapes[THRESHOLD] = [width]
    if _OLD_NAMES.keys() & tensors.keys():
        names = {old: new for old, new in _OLD_NAMES.items() if new[0] in shapes}
    else:
        names = {name: (name, False) for name in shapes}
    wanted = {
        name: shapes[today][::-1] if turned else shapes[today]
        for name, (today, turned) in names.items()
    }
    found = check_tensors(tensors, wanted, path)
    weights = {
        today: found[name].t() if turned else found[name] for name, (today, turned) in names.items()
    }
    return {"b_D": torch.zeros(d)} | weights
