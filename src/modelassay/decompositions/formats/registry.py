"""Dictionaries of all formats, by one name: ``sparsify:path/to/layers.10``."""

from collections.abc import Callable
from pathlib import Path

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.circuit_tracer import read_circuit_tracer
from modelassay.decompositions.formats.dictionary_learning import read_dictionary_learning
from modelassay.decompositions.formats.dictionary_learning_writer import (
    write_dictionary_learning,
)
from modelassay.decompositions.formats.gemma_scope import read_gemma_scope
from modelassay.decompositions.formats.goodfire import read_goodfire
from modelassay.decompositions.formats.llama_scope import read_llama_scope
from modelassay.decompositions.formats.openai import read_openai
from modelassay.decompositions.formats.qwen_scope import read_qwen_scope
from modelassay.decompositions.formats.saelens import read_saelens, write_saelens
from modelassay.decompositions.formats.sparsify import read_sparsify, write_sparsify
from modelassay.decompositions.storage import load_decomposition

READERS: dict[str, Callable[[str], Decomposition]] = {
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

WRITERS = ("modelassay", "saelens", "dictionary_learning", "sparsify")
"""Formats that `write_dictionary` knows."""


def read_dictionary(name: str) -> Decomposition:
    """The dictionary that a prefixed path names; without a prefix, one of our own folders.

    Args:
        name: such as ``saelens:path/to/folder``.

    Raises:
        UnknownNameError: if the prefix is none of `READERS`; near misses are suggested.
        ModelassayError: whatever the format's reader refuses.
    """
    prefix, colon, path = name.partition(":")
    # A folder may have a colon in its own name, as C:\\ does.
    if not colon or Path(name).exists():
        return load_decomposition(name)
    if prefix not in READERS:
        raise UnknownNameError("A dictionary's format", prefix, READERS)
    return READERS[prefix](path)


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
