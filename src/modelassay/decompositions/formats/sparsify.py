"""Read and write dictionaries as hookpoint folders of EleutherAI/sparsify.

A folder holds ``cfg.json`` and ``sae.safetensors`` and is named after the module whose output it
reconstructs, such as ``layers.10``. Tensors: ``encoder.weight`` [width, d], ``encoder.bias``
[width], ``W_dec`` [width, d] (not transposed, unlike the encoder), ``b_dec`` [d] and, for a skip
connection, ``W_skip`` [d_out, d_in]. Autoencoders subtract ``b_dec`` from their input, transcoders
do not.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelassay.core.errors import OutputExistsError, ShapeError, ValueRangeError
from modelassay.core.files import write_json, write_tensors
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble, encoder_bias, require_both_sites
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_config_file,
    read_safetensors,
    refusal,
    whole_number,
)
from modelassay.decompositions.sparsifiers import GroupMaxActivation, TopKActivation
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae.safetensors"
_KIND = "sparsify"

# What acts on the forward pass, with the only value that is understood; and what does not.
_FIXED: dict[str, tuple[object, str]] = {
    "signed": (False, "False: latents' values are positive here"),
    "embed_skip": (False, "False: the embedding is no part of what a dictionary reads"),
    "gram_lookup": (False, "False: its table is not in the folder"),
}
_KNOWN = {
    "activation", "d_in", "k", "num_latents", "expansion_factor", "skip_connection", "transcode",
    "normalize_decoder", "multi_topk", "lookup_max_order", "gram_table_hash",
}  # fmt: skip
_ACTIVATIONS = {"topk": TopKActivation, "groupmax": GroupMaxActivation}

_UNIT = 1e-3  # how far a row's length may be from 1 to be called normalised (ours)

# Module names of the usual architectures, inside any wrapper: a block, its attention, its MLP.
_HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.(mlp|attn|attention|self_attn))?")


def read_sparsify(
    folder: str | Path, *, reads: Site | None = None, writes: Site | None = None
) -> Dictionary:
    """Read a hookpoint's folder: autoencoders, transcoders and skip transcoders.

    Half-precision weights become float32.

    Args:
        folder: holds ``cfg.json`` and ``sae.safetensors``.
        reads: where the activations stand; None reads the folder's name, taking the module's
            output for what is added to the residual stream. Where the model has a norm in
            between (Gemma 2, OLMo 2), say it.
        writes: likewise for what the reconstructions stand for; None means the same as `reads`
            where that is given, which a transcoder's caller must not leave open.

    Raises:
        CorruptFileError: if a file or tensor is missing or truncated.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if the config says what this reader does not understand.
    """
    folder = Path(folder)
    config_path, path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    config = read_config_file(config_path, _KIND)
    _check_config(config, config_path)
    d = whole_number(config, "d_in", config_path)
    k = whole_number(config, "k", config_path)
    width = config.get("num_latents") or d * whole_number(config, "expansion_factor", config_path)
    wanted = {
        "encoder.weight": [width, d],
        "encoder.bias": [width],
        "W_dec": [width, d],
        "b_dec": [d],
    }
    transcodes, skips = (bool(config.get(key, False)) for key in ("transcode", "skip_connection"))
    if skips:
        wanted["W_skip"] = [d, d]
    weights = check_tensors(read_safetensors(path, _KIND), wanted, path)
    if reads is None:
        named_reads, named_writes = _sites(folder.absolute().name, transcodes=transcodes)
        reads, writes = named_reads, writes or named_writes
    if transcodes:
        require_both_sites(reads, writes, path)
    dictionary = assemble(
        weights["encoder.weight"].t(),
        weights["encoder.bias"],
        weights["W_dec"],
        weights["b_dec"],
        _ACTIVATIONS[config.get("activation", "topk")](k),
        subtracts=not transcodes,
        reads=reads,
        writes=writes,
    )
    return SkipTranscoder.around(dictionary, weights["W_skip"].t()) if skips else dictionary


def write_sparsify(dictionary: Dictionary, folder: str | Path, *, force: bool = False) -> None:
    """Write a folder that sparsify's `SparseCoder.load_from_disk` reads.

    A dictionary between two sites becomes a transcoder. The library finds the module by the
    folder's name: call it after the hookpoint, such as ``layers.10``.

    Args:
        dictionary: of the sparsifier TopK or GroupMax, with equal widths of input and output.
        folder: made if absent.
        force: whether a dictionary that is there already may be replaced.

    Raises:
        ShapeError: if its input and output differ in width.
        ValueRangeError: if its sparsifier is another.
        OutputExistsError: if a dictionary is there already and `force` is False.
        StorageError: if the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / CONFIG_FILE).exists() and not force:
        raise OutputExistsError(
            f"A sparsify folder must be new; got {str(folder)!r} with a {CONFIG_FILE} in it. "
            "Pass force=True to replace it, or choose another place."
        )
    if dictionary.d_in != dictionary.d_out:
        raise ShapeError(
            "Only dictionaries whose input and output are of one width have this form; got "
            f"{dictionary.d_in} -> {dictionary.d_out}. Save it in our own format instead."
        )
    if not isinstance(dictionary.activation, TopKActivation | GroupMaxActivation):
        raise ValueRangeError(
            "A sparsifier must be topk or groupmax to have a form in sparsify; got "
            f"{dictionary.activation.kind}. Convert to SAELens or dictionary_learning instead."
        )
    skips = isinstance(dictionary, SkipTranscoder)
    transcodes = skips or dictionary.reads != dictionary.writes
    tensors = {
        "encoder.weight": dictionary.W_enc.detach().t(),
        "encoder.bias": encoder_bias(dictionary, subtracts=not transcodes),
        "W_dec": dictionary.W_dec.detach(),
        "b_dec": dictionary.b_dec.detach(),
    }
    if isinstance(dictionary, SkipTranscoder):
        tensors["W_skip"] = dictionary.W_skip.detach().t()
    lengths = dictionary.W_dec.detach().norm(dim=1)
    content = {
        "activation": dictionary.activation.kind,
        "expansion_factor": max(1, dictionary.width // dictionary.d_in),
        "normalize_decoder": bool(((lengths - 1).abs() < _UNIT).all()),
        "num_latents": dictionary.width,
        "k": dictionary.activation.k,
        "multi_topk": False,
        "skip_connection": skips,
        "transcode": transcodes,
        "d_in": dictionary.d_in,
    }
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_json(folder / CONFIG_FILE, content)


def _check_config(config: Mapping[str, Any], path: Path) -> None:
    for key, value in config.items():
        if key in _FIXED:
            allowed, described = _FIXED[key]
            if value != allowed:
                raise refusal(path, key, value, described)
        elif key not in _KNOWN:
            raise refusal(path, key, value, "a key that this reader knows")
    activation = config.get("activation", "topk")
    if activation not in _ACTIVATIONS:
        raise refusal(path, "activation", activation, "topk or groupmax")
    if config.get("skip_connection") and not config.get("transcode"):
        raise refusal(
            path, "skip_connection", config["skip_connection"],
            "False where transcode is: an autoencoder's skip connection may carry all of x",
        )  # fmt: skip


def _sites(hookpoint: str, *, transcodes: bool) -> tuple[Site | None, Site | None]:
    """Input and output of the module that a folder is named after; None for other names."""
    found = _HOOKPOINT.fullmatch(hookpoint)
    if found is None:
        return None, None
    layer = int(found[1])
    part = {None: "resid", "mlp": "mlp"}.get(found[2], "attn")
    output = Site("resid_post" if part == "resid" else f"{part}_out", layer)
    entry = Site("resid_pre" if part == "resid" else f"{part}_in", layer)
    return (entry if transcodes else output), output
