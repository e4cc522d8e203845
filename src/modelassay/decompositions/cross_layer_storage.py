"""Write and read cross-layer transcoders, in folders like those of decompositions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError
from modelassay.decompositions import sparsifiers
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.decoder_rows import HeldRows
from modelassay.decompositions.folder import (
    Saved,
    naming_what_is_missing,
    read_folder,
    write_folder,
)
from modelassay.decompositions.sparsifier import read_sparsifier
from modelassay.subjects.site import Site

_KIND = "cross_layer_transcoder"
_REGISTERED = sparsifiers  # the library's own register themselves when they are imported


def save_cross_layer(
    transcoder: CrossLayerTranscoder, directory: str | Path, *, force: bool = False
) -> None:
    """Write a folder that `load_cross_layer` reads.

    Args:
        transcoder: what to write; decoders that were left in their files are read for it.
        directory: made if absent.
        force: whether a decomposition that is there already may be replaced.

    Raises:
        OutputExistsError: if one is there already and `force` is False.
        StorageError: if the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {"b_dec": transcoder.b_dec}
    activations: list[dict[str, Any]] = []
    for number, source in enumerate(transcoder.sources):
        own = {
            "W_enc": source.W_enc,
            "b_enc": source.b_enc,
            "W_dec": source.decoders.rows(torch.arange(source.width)),
            **({} if source.W_skip is None else {"W_skip": source.W_skip}),
        }
        own |= {f"activation.{k}": v for k, v in source.activation.state_dict().items()}
        tensors |= {f"{number}.{key}": tensor for key, tensor in own.items()}
        activations.append({"kind": source.activation.kind, **source.activation.settings()})
    saved = Saved(
        kind=_KIND,
        name=transcoder.name,
        reads=None,
        writes=None,
        references=transcoder.references,
        subject_fingerprint=None,
        provenance=transcoder.provenance,
        config={
            "reads": [str(site) for site in transcoder.reads],
            "writes": [str(site) for site in transcoder.writes],
            "activations": activations,
        },
        tensors=tensors,
    )
    write_folder(saved, directory, force=force)


def load_cross_layer(directory: str | Path) -> CrossLayerTranscoder:
    """The cross-layer transcoder in a folder that `save_cross_layer` wrote, on the CPU.

    Raises:
        CorruptFileError: if the folder is incomplete, damaged or holds something else.
        UnknownNameError: if a sparsifier's kind is not registered.
    """
    saved = read_folder(directory)
    if saved.kind != _KIND:
        raise CorruptFileError(
            f"{str(directory)!r} must hold a {_KIND}; got a {saved.kind}. "
            "Read it with load_decomposition."
        )
    with naming_what_is_missing(directory, _KIND):
        return _read(saved)


def _read(saved: Saved) -> CrossLayerTranscoder:
    sources: list[Source] = []
    for number, (reads, settings) in enumerate(
        zip(saved.config["reads"], saved.config["activations"], strict=True)
    ):
        prefix = f"{number}."
        own = {k.removeprefix(prefix): v for k, v in saved.tensors.items() if k.startswith(prefix)}
        settings = dict(settings)
        kept = {
            k.removeprefix("activation."): v for k, v in own.items() if k.startswith("activation.")
        }
        sources.append(
            Source(
                reads=Site.parse(reads),
                W_enc=own["W_enc"],
                b_enc=own["b_enc"],
                activation=read_sparsifier(settings.pop("kind"), settings, kept),
                decoders=HeldRows(weight=own["W_dec"]),
                W_skip=own.get("W_skip"),
            )
        )
    transcoder = CrossLayerTranscoder(
        sources=sources,
        writes=[Site.parse(site) for site in saved.config["writes"]],
        b_dec=saved.tensors["b_dec"],
        name=saved.name,
        references=saved.references,
    )
    transcoder.provenance = saved.provenance
    return transcoder
