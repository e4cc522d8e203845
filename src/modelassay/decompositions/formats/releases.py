"""Releases as SAELens names them: which repository and path a ``RELEASE/ID`` stands for.

The table is SAELens' own file, ``pretrained_saes.yaml``: releases with ``repo_id``,
``conversion_func`` and ``saes``, a list of ``id`` and ``path``. It is read from an installed
package, or from a copy of the user's; none comes with this library.
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelassay.core.errors import CorruptFileError, UnknownNameError, ValueRangeError

REGISTRY = "MODELASSAY_SAELENS_REGISTRY"
"""Environment variable: a file of releases, YAML or JSON."""

_FILE = "pretrained_saes.yaml"

# The name of SAELens' loader -> the format here.
_FORMATS: dict[str | None, str] = {
    None: "saelens",
    "sae_lens": "saelens",
    "gemma_2": "gemma_scope",
    "gemma_2_transcoder": "gemma_scope",
    "gemma_3": "gemma_scope",
    "llama_scope": "llama_scope",
    "llama_scope_r1_distill": "llama_scope",
    "dictionary_learning_1": "dictionary_learning",
    "sparsify": "sparsify",
    "qwen_scope": "qwen_scope",
    "goodfire": "goodfire",
    "deepseek_r1": "goodfire",
    "mwhanna_transcoder": "circuit_tracer",
    "temporal": "temporal",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What a ``RELEASE/ID`` stands for."""

    format: str
    """Ours, for `registry.READERS`."""
    name: str
    """``ORG/REPO/PATH``."""
    centred: bool | None
    """Whether the model's residual stream had its mean subtracted; None if it is not said."""


def find_release(text: str) -> Release | None:
    """What a text names, if it begins with a release; None without a table or such a release.

    Raises:
        CorruptFileError: if the table is missing or has no entry that is needed.
        UnknownNameError: if the release has no dictionary of that name.
        ValueRangeError: if its files have no form here.
    """
    release, _, identifier = text.partition("/")
    table = _read_table()
    if table is None or release not in table:
        return None
    entry = table[release]
    by_id = {str(sae.get("id")): sae for sae in entry.get("saes", ())}
    if identifier not in by_id:
        raise UnknownNameError(f"A dictionary of {release}", identifier, by_id)
    sae = by_id[identifier]
    loader = sae.get("conversion_func", entry.get("conversion_func"))
    if loader not in _FORMATS:
        raise ValueRangeError(
            f"{text!r} must be of a format that is read here; got one that SAELens reads with "
            f"{loader!r}. {_advice(loader, entry)}"
        )
    if "repo_id" not in entry or "path" not in sae:
        raise CorruptFileError(
            f"A release's table must give repo_id and path; got neither or one for {text!r}. "
            "Copy it again."
        )
    return Release(
        format=_FORMATS[loader],
        name=f"{entry['repo_id']}/{sae['path']}",
        centred=_centred(sae) if _centred(sae) is not None else _centred(entry),
    )


def ids_of_release(release: str) -> list[str] | None:
    """The names of all dictionaries of a release; None without a table or such a release.

    Raises:
        CorruptFileError: if the table is missing.
    """
    table = _read_table()
    if table is None or release not in table:
        return None
    return [str(sae.get("id")) for sae in table[release].get("saes", ())]


def hint() -> str:
    """What to do where a release's name was meant."""
    found = _table_path()
    if found is not None:
        return f"{str(found)!r} has no release of that name either."
    return (
        f"If it is a RELEASE/ID of SAELens: install sae-lens, or name a copy of its {_FILE} in "
        f"{REGISTRY}."
    )


def _table_path() -> Path | None:
    if given := os.environ.get(REGISTRY):
        return Path(given)
    package = importlib.util.find_spec("sae_lens")  # which does not import it
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (Path(folder) / _FILE).is_file():
            return Path(folder) / _FILE
    return None


def _read_table() -> dict[str, Any] | None:
    path = _table_path()
    if path is None:
        return None
    if not path.is_file():
        raise CorruptFileError(
            f"{REGISTRY} must name a file of releases; got {str(path)!r}, which is none. "
            "Correct it, or unset it."
        )
    try:
        # The parser in C is ten times faster, where it was built; both make plain values only.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        table = yaml.load(path.read_text("utf-8"), Loader=loader)
    except yaml.YAMLError as error:
        raise CorruptFileError(
            f"{str(path)!r} must be YAML or JSON; got: {str(error).splitlines()[0]}. Copy it again."
        ) from error
    if not isinstance(table, dict):
        raise CorruptFileError(
            f"{str(path)!r} must hold releases by name; got {type(table).__name__}. Copy it again."
        )
    return table


def _centred(entry: Mapping[str, Any]) -> bool | None:
    overrides = entry.get("config_overrides") or {}
    kwargs: Mapping[str, Any] = overrides.get("model_from_pretrained_kwargs") or {}
    return kwargs.get("center_writing_weights")


def _advice(loader: str, entry: Mapping[str, Any]) -> str:
    if "clt" in loader:
        return f"Read the whole: read_cross_layer('circuit_tracer:{entry.get('repo_id')}')."
    return "Use that library."
