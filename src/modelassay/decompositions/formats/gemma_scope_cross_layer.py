"""Read cross-layer transcoders of Gemma Scope 2.

A folder holds ``config.json`` and, for every layer i of n, ``params_layer_i.safetensors`` with
``w_enc`` [d_in, width], ``w_dec`` [width, n, d_out], ``b_enc``, ``b_dec``, ``threshold`` and, if
``affine_connection`` is set, ``affine_skip_connection`` [d_in, d_out]. Every file has decoders to
all n layers; those to layers before its own are no part of the transcoder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ShapeError
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.decoder_rows import DecoderRows, HeldRows, StoredRows
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_safetensors,
    sizes_of,
)
from modelassay.decompositions.formats.gemma_scope import (
    CONFIG_FILE,
    SKIP,
    read_second_config,
    site_of_module,
)
from modelassay.decompositions.formats.layers import (
    numbered_files,
    require_count,
    sites_of_layers,
)
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.subjects.site import Site

FILES = "params_layer_{}.safetensors"
_KIND = "Gemma Scope"


def read_gemma_scope_cross_layer(
    folder: str | Path,
    *,
    reads: Sequence[Site] | None = None,
    writes: Sequence[Site] | None = None,
    lazy: bool = False,
) -> CrossLayerTranscoder:
    """Read a folder of ``params_layer_i.safetensors``.

    Args:
        folder: holds the files of all layers and ``config.json``.
        reads: where the activations of every layer stand; None reads the config, if it lists
            them layer by layer.
        writes: likewise for what the reconstructions stand for.
        lazy: whether decoders stay in their files until their latents are active.

    Raises:
        CorruptFileError: if a file or tensor of any layer is missing or truncated.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if there is a tensor that is not known, or the sites are not.
    """
    folder = Path(folder)
    config = read_second_config(folder / CONFIG_FILE)
    files = numbered_files(folder, FILES, _KIND)
    skips = bool(config.get("affine_connection"))
    layers = [
        _read_layer(path, i, len(files), skips=skips, lazy=lazy) for i, path in enumerate(files)
    ]
    reads = sites_of_layers(reads, _named(config, "hf_hook_point_in", len(files)), folder, "reads")
    writes = sites_of_layers(
        writes, _named(config, "hf_hook_point_out", len(files)), folder, "writes"
    )
    sources = [
        Source(
            reads=site,
            W_enc=weights["w_enc"],
            b_enc=weights["b_enc"],
            activation=JumpReLUActivation(weights["threshold"]),
            decoders=decoders,
            W_skip=weights.get(SKIP),
        )
        for site, (weights, decoders) in zip(reads, layers, strict=True)
    ]
    biases = torch.stack([weights["b_dec"] for weights, _ in layers])
    return CrossLayerTranscoder(sources=sources, writes=writes, b_dec=biases)


def _read_layer(
    path: Path, layer: int, n_layers: int, *, skips: bool, lazy: bool
) -> tuple[dict[str, Tensor], DecoderRows]:
    tensors = read_safetensors(path, _KIND)
    d_out, width = sizes_of(tensors, path, inputs="b_dec", latents="b_enc")
    if "w_dec" not in tensors:
        raise CorruptFileError(
            f"{str(path)!r}: the tensor w_dec must be there, of shape {[width, n_layers, d_out]}; "
            f"got {', '.join(sorted(tensors))}. Fetch the file again."
        )
    shape = tensors["w_dec"].shape
    if tensors["w_dec"].ndim == 3 and (shape[0], shape[2]) == (width, d_out):
        require_count(path.parent, FILES, _KIND, found=n_layers, wanted=shape[1])
    if "w_enc" in tensors and tensors["w_enc"].ndim != 2:
        raise ShapeError(
            f"{str(path)!r}: w_enc must have the shape [d_in, {width}]; got "
            f"{list(tensors['w_enc'].shape)}. Fetch the file again."
        )
    # What is read and what is written are both of the model's width: a transposed encoder must
    # not pass for another.
    wanted = {
        "w_enc": [d_out, width],
        "b_enc": [width],
        "w_dec": [width, n_layers, d_out],
        "b_dec": [d_out],
        "threshold": [width],
    }
    if skips:
        wanted[SKIP] = [d_out, d_out]
    weights = check_tensors(tensors, wanted, path)
    held = weights.pop("w_dec")[:, layer:].contiguous()
    if lazy:
        return weights, StoredRows.open(path, "w_dec", (width, n_layers, d_out), first=layer)
    return weights, HeldRows(weight=held)


def _named(config: Mapping[str, Any], key: str, n_layers: int) -> list[Site | None]:
    """The sites that a config lists; None for every layer if it does not."""
    hooks = config.get(key)
    if not isinstance(hooks, list) or len(hooks) != n_layers:
        return [None] * n_layers
    return [site_of_module(hook) for hook in hooks]
