"""Read cross-layer transcoders in circuit-tracer's layout.

A folder holds, for every layer i of n, ``W_enc_i.safetensors`` with ``W_enc_i`` [width, d],
``b_enc_i``, ``b_dec_i`` and for JumpReLU ``threshold_i`` [width], and ``W_dec_i.safetensors`` with
``W_dec_i`` [width, n - i, d], the decoders to layer i and all later ones. ``config.yaml`` names the
hooks.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.decoder_rows import HeldRows, StoredRows
from modelassay.decompositions.formats.circuit_tracer import CONFIG_FILE, site_in_config
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_safetensors,
    require_file,
    sizes_of,
)
from modelassay.decompositions.formats.layers import (
    numbered_files,
    require_count,
    sites_of_layers,
)
from modelassay.decompositions.sparsifiers import JumpReLUActivation, ReLUActivation
from modelassay.subjects.site import Site

ENCODERS, DECODERS = "W_enc_{}.safetensors", "W_dec_{}.safetensors"
_KIND = "circuit-tracer"


def read_circuit_tracer_cross_layer(
    folder: str | Path,
    *,
    reads: Sequence[Site] | None = None,
    writes: Sequence[Site] | None = None,
    lazy: bool = False,
) -> CrossLayerTranscoder:
    """Read a folder of ``W_enc_i.safetensors`` and ``W_dec_i.safetensors``.

    Args:
        folder: holds the files of all layers.
        reads: where the activations of every layer stand; None reads ``config.yaml``.
        writes: likewise for what the reconstructions stand for.
        lazy: whether decoders stay in their files until their latents are active.

    Raises:
        CorruptFileError: if a file or tensor of any layer is missing or truncated.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if there is a tensor that is not known, or a hook.
    """
    folder = Path(folder)
    files = numbered_files(folder, ENCODERS, _KIND)
    config, layers = folder / CONFIG_FILE, range(len(files))
    named_reads = [site_in_config(config, "feature_input_hook", i) for i in layers]
    named_writes = [site_in_config(config, "feature_output_hook", i) for i in layers]
    reads = sites_of_layers(reads, named_reads, folder, "reads")
    writes = sites_of_layers(writes, named_writes, folder, "writes")
    sources, biases, jumps = list[Source](), list[torch.Tensor](), None
    for i, path in enumerate(files):
        tensors = read_safetensors(path, _KIND)
        d, width = sizes_of(tensors, path, inputs=f"b_dec_{i}", latents=f"b_enc_{i}")
        if jumps is None:
            jumps = f"threshold_{i}" in tensors
        # Layers are all of one kind: a threshold that one of them lacks was lost.
        wanted = {f"W_enc_{i}": [width, d], f"b_enc_{i}": [width], f"b_dec_{i}": [d]}
        wanted |= {f"threshold_{i}": [width]} if jumps else {}
        weights = check_tensors(tensors, wanted, path)
        biases.append(weights[f"b_dec_{i}"])
        activation = JumpReLUActivation(weights[f"threshold_{i}"]) if jumps else ReLUActivation()
        sources.append(
            Source(
                reads=reads[i],
                W_enc=weights[f"W_enc_{i}"].t(),
                b_enc=weights[f"b_enc_{i}"],
                activation=activation,
                decoders=_decoders(folder, i, len(files), width, d, lazy=lazy),
            )
        )
    return CrossLayerTranscoder(sources=sources, writes=writes, b_dec=torch.stack(biases))


def _decoders(
    folder: Path, layer: int, n_layers: int, width: int, d: int, *, lazy: bool
) -> HeldRows | StoredRows:
    path, key = folder / DECODERS.format(layer), f"W_dec_{layer}"
    require_file(path, _KIND)
    if lazy:
        return StoredRows.open(path, key, (width, n_layers - layer, d))
    tensors = read_safetensors(path, _KIND)
    if key in tensors and tensors[key].ndim == 3 and tensors[key].shape[::2] == (width, d):
        said = tensors[key].shape[1] + layer
        require_count(folder, ENCODERS, _KIND, found=n_layers, wanted=said)
    return HeldRows(weight=check_tensors(tensors, {key: [width, n_layers - layer, d]}, path)[key])
