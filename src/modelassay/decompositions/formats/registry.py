"""Dictionaries of all formats, by one name: ``sparsify:path/to/layers.10``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.decompositions.cross_layer import CrossLayerTranscoder
from modelassay.decompositions.cross_layer_storage import load_cross_layer, save_cross_layer
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.circuit_tracer import read_circuit_tracer
from modelassay.decompositions.formats.circuit_tracer_cross_layer import (
    read_circuit_tracer_cross_layer,
)
from modelassay.decompositions.formats.circuit_tracer_writer import (
    write_circuit_tracer_cross_layer,
)
from modelassay.decompositions.formats.dictionary_learning import read_dictionary_learning
from modelassay.decompositions.formats.dictionary_learning_writer import (
    write_dictionary_learning,
)
from modelassay.decompositions.formats.gemma_scope import read_gemma_scope
from modelassay.decompositions.formats.gemma_scope_cross_layer import (
    read_gemma_scope_cross_layer,
)
from modelassay.decompositions.formats.goodfire import read_goodfire
from modelassay.decompositions.formats.llama_scope import read_llama_scope
from modelassay.decompositions.formats.llamascopium_cross_layer import (
    read_llamascopium_cross_layer,
)
from modelassay.decompositions.formats.locating import locate
from modelassay.decompositions.formats.openai import read_openai
from modelassay.decompositions.formats.qwen_scope import read_qwen_scope
from modelassay.decompositions.formats.saelens import read_saelens, write_saelens
from modelassay.decompositions.formats.sparsify import read_sparsify, write_sparsify
from modelassay.decompositions.formats.temporal import refuse_temporal
from modelassay.decompositions.storage import load_decomposition
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

READERS: dict[str, Callable[..., Decomposition]] = {
    "modelassay": load_decomposition,
    "saelens": read_saelens,
    "dictionary_learning": read_dictionary_learning,
    "sparsify": read_sparsify,
    "gemma_scope": read_gemma_scope,
    "llama_scope": read_llama_scope,
    "openai": read_openai,
    "qwen_scope": read_qwen_scope,
    "goodfire": read_goodfire,
    "circuit_tracer": read_circuit_tracer,
}
"""Prefix -> what reads the path after it."""

CROSS_LAYER_READERS: dict[str, Callable[..., CrossLayerTranscoder]] = {
    "modelassay": load_cross_layer,
    "circuit_tracer": read_circuit_tracer_cross_layer,
    "gemma_scope": read_gemma_scope_cross_layer,
    "llama_scope": read_llamascopium_cross_layer,
}
"""Prefix -> what reads a cross-layer transcoder's folder."""

WRITERS = ("modelassay", "saelens", "dictionary_learning", "sparsify")
"""Formats that `write_dictionary` knows."""

CROSS_LAYER_WRITERS = ("modelassay", "circuit_tracer")
"""Formats that `write_cross_layer` knows."""

_REFUSED: dict[str, Callable[[str], NoReturn]] = {"temporal": refuse_temporal}
_LAZY = ("circuit_tracer", "gemma_scope")
_HOLDING_SKIPS = ("modelassay", "sparsify")


def read_dictionary(name: str, *, mirror: str | Path | None = None) -> Decomposition:
    """The dictionary that a prefixed name stands for; without a prefix, one of our own folders.

    What follows the prefix is a path on this machine, or ``ORG/REPO/PATH`` in a mirror or on the
    Hugging Face hub, or for ``saelens:`` a ``RELEASE/ID`` of SAELens' table.

    Args:
        name: such as ``saelens:path/to/folder`` or ``sparsify:ORG/REPO/layers.3``.
        mirror: a folder with ``ORG/REPO/files`` to use instead of the hub; None asks the
            environment for `MODELASSAY_MIRROR`.

    Raises:
        UnknownNameError: if the prefix is none of `READERS`; near misses are suggested.
        CorruptFileError: if there are no such files anywhere.
        ModelassayError: whatever the format's reader refuses.
    """
    prefix, colon, path = name.partition(":")
    # A folder may have a colon in its own name, as C:\\ does.
    if not colon or Path(name).exists():
        return load_decomposition(name)
    if prefix in _REFUSED:
        _REFUSED[prefix](path)
    if prefix not in READERS:
        raise UnknownNameError("A dictionary's format", prefix, READERS)
    found = locate(prefix, path, mirror=mirror)
    if found.format in _REFUSED:
        _REFUSED[found.format](found.name)
    options: dict[str, Any] = {"centred": True} if found.centred else {}
    dictionary = READERS[found.format](str(found.path), **options)
    dictionary.provenance = found.provenance(name) or dictionary.provenance
    return dictionary


def read_cross_layer(
    name: str,
    *,
    reads: Sequence[Site] | None = None,
    writes: Sequence[Site] | None = None,
    lazy: bool = False,
    mirror: str | Path | None = None,
) -> CrossLayerTranscoder:
    """The cross-layer transcoder that a prefixed name stands for, as in `read_dictionary`.

    Args:
        name: such as ``circuit_tracer:ORG/REPO``; of a folder with the files of all layers.
        reads: where the activations of every layer stand; None reads the files.
        writes: likewise for what the reconstructions stand for.
        lazy: whether decoders stay in their files until their latents are active; for the formats
            that have a file per layer, circuit_tracer and gemma_scope.
        mirror: as in `read_dictionary`.

    Raises:
        UnknownNameError: if the prefix is none of `CROSS_LAYER_READERS`.
        ValueRangeError: if a format cannot be read lazily.
        CorruptFileError: if there are no such files anywhere, or a layer is missing.
        ModelassayError: whatever the format's reader refuses.
    """
    prefix, _, path = name.partition(":")
    if prefix not in CROSS_LAYER_READERS:
        raise UnknownNameError("A cross-layer transcoder's format", prefix, CROSS_LAYER_READERS)
    if lazy and prefix not in _LAZY:
        raise ValueRangeError(
            f"Decoders can stay in the files of {' and '.join(_LAZY)}; got {prefix}. "
            "Read it without lazy."
        )
    found = locate(prefix, path, mirror=mirror, layers=True)
    options = {"reads": reads, "writes": writes, "lazy": lazy}
    given = {key: value for key, value in options.items() if value}
    transcoder = CROSS_LAYER_READERS[prefix](str(found.path), **given)
    transcoder.provenance = found.provenance(name) or transcoder.provenance
    return transcoder


def write_dictionary(
    dictionary: Decomposition,
    folder: str | Path,
    *,
    to: str,
    model_name: str | None = None,
    force: bool = False,
) -> None:
    """Write a dictionary in one of the formats of `WRITERS`.

    Args:
        dictionary: what to write; formats other than ours hold only a `Dictionary`.
        folder: made if absent.
        to: the format.
        model_name: of the model that it belongs to, for the formats that say it.
        force: whether a dictionary that is there already may be replaced.

    Raises:
        UnknownNameError: if the format is unknown.
        ValueRangeError: if the decomposition has no form in it.
        ModelassayError: whatever the format's writer refuses.
    """
    if to not in WRITERS:
        raise UnknownNameError("A format to write", to, WRITERS)
    if to == "modelassay":
        dictionary.save(folder, force=force)
        return
    if isinstance(dictionary, SkipTranscoder) and to not in _HOLDING_SKIPS:
        raise ValueRangeError(
            f"A skip connection has a form in {' and '.join(_HOLDING_SKIPS)}; got {to}. "
            "Write it as one of these instead."
        )
    if not isinstance(dictionary, Dictionary):
        raise ValueRangeError(
            f"Only dictionaries have a form in {to}; got {dictionary.name}. "
            "Write it as modelassay instead."
        )
    if to == "saelens":
        write_saelens(dictionary, folder, model_name=model_name, force=force)
    elif to == "sparsify":
        write_sparsify(dictionary, folder, force=force)
    else:
        write_dictionary_learning(dictionary, folder, model_name=model_name, force=force)


def write_cross_layer(
    transcoder: CrossLayerTranscoder,
    folder: str | Path,
    *,
    to: str,
    model_name: str | None = None,
    force: bool = False,
) -> None:
    """Write a cross-layer transcoder in one of the formats of `CROSS_LAYER_WRITERS`.

    Args:
        transcoder: what to write.
        folder: made if absent.
        to: the format.
        model_name: of the model that it belongs to, for circuit_tracer.
        force: whether a transcoder that is there already may be replaced.

    Raises:
        UnknownNameError: if the format is unknown.
        ModelassayError: whatever the format's writer refuses.
    """
    if to not in CROSS_LAYER_WRITERS:
        raise UnknownNameError("A format of cross-layer transcoders", to, CROSS_LAYER_WRITERS)
    if to == "modelassay":
        save_cross_layer(transcoder, folder, force=force)
    else:
        write_circuit_tracer_cross_layer(transcoder, folder, model_name=model_name, force=force)
