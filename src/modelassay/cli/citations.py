"""From what a person names to the keys of its references."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelassay.core.errors import UnknownNameError
from modelassay.core.files import read_json
from modelassay.core.references import REFERENCES
from modelassay.decompositions.linear import PCA, Neurons, RandomDictionary
from modelassay.decompositions.recipes import BatchTopK, ReLUL1, TopK

METHODS = {
    "topk": TopK.references,
    "batchtopk": BatchTopK.references,
    "relu": ReLUL1.references,
    "pca": PCA.references,
    "neurons": Neurons.references,
    "random": RandomDictionary.references,
}


def keys_of(what: Sequence[str]) -> list[str]:
    """Sorted keys of everything named; of all references when nothing is.

    Raises:
        UnknownNameError: for what is neither an audit's folder, a method nor a key.
    """
    if not what:
        return sorted(REFERENCES)
    return sorted({key for name in what for key in _keys_of_one(name)})


def _keys_of_one(name: str) -> Sequence[str]:
    if name in METHODS:
        return METHODS[name]
    if name in REFERENCES:
        return [name]
    if (Path(name) / "audit.json").is_file():
        return list(_cited(read_json(Path(name) / "audit.json")))
    raise UnknownNameError(
        "What to cite, if it is no audit's folder,", name, [*METHODS, *REFERENCES]
    )


def _cited(content: Any) -> Iterator[str]:
    """Every key in a list named "references", however deep."""
    if isinstance(content, dict):
        yield from content.get("references") or []
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _cited(value)
