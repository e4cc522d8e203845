"""From what a person names to the keys of its references."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelassay.core.errors import UnknownNameError
from modelassay.core.files import read_json
from modelassay.core.references import REFERENCES
from modelassay.decompositions.inference_time import Pursuit
from modelassay.decompositions.linear import PCA, Neurons, RandomDictionary
from modelassay.decompositions.local_interaction import LocalInteractionBasis
from modelassay.decompositions.recipes import (
    AbsTopK,
    AnnealedL1,
    Archetypal,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    OrthogonalMatchingPursuit,
    ReLUL1,
    TopK,
)
from modelassay.report import (
    contrast,
    examples,
    lens,
    patching,
    probe_history,
    probes,
    steering,
    superposition,
)

METHODS = {
    "topk": TopK.references,
    "batchtopk": BatchTopK.references,
    "relu": ReLUL1.references,
    "jumprelu": JumpReLU.references,
    "matryoshka": Matryoshka.references,
    "gated": Gated.references,
    "annealed": AnnealedL1.references,
    "matching_pursuit": MatchingPursuit.references,
    "orthogonal_matching_pursuit": OrthogonalMatchingPursuit.references,
    "archetypal": Archetypal.references,
    "abstopk": AbsTopK.references,
    "groupmax": GroupMax.references,
    "lib": LocalInteractionBasis.references,
    "pca": PCA.references,
    "neurons": Neurons.references,
    "random": RandomDictionary.references,
    "pursuit": Pursuit.references,
    "contrast": contrast.REFERENCES,
    "examples": examples.REFERENCES,
    "history": probe_history.REFERENCES,
    "lens": lens.REFERENCES,
    "patch": patching.REFERENCES,
    "probe": probes.REFERENCES,
    "steer": steering.REFERENCES,
    "superposition": superposition.REFERENCES,
}

_DESCRIPTIONS = ("audit.json", "dictionary/config.json", "config.json")


def keys_of(what: Sequence[str]) -> list[str]:
    """Sorted keys of everything named; of all references when nothing is.

    Raises:
        UnknownNameError: for what is neither an audit's or dictionary's folder, a method nor a key.
    """
    if not what:
        return sorted(REFERENCES)
    return sorted({key for name in what for key in _keys_of_one(name)})


def _keys_of_one(name: str) -> Sequence[str]:
    if name in METHODS:
        return METHODS[name]
    if name in REFERENCES:
        return [name]
    found = [Path(name) / part for part in _DESCRIPTIONS if (Path(name) / part).is_file()]
    if found:
        return [key for path in found for key in _cited(read_json(path))]
    known = [*METHODS, *REFERENCES]
    raise UnknownNameError("What to cite, if it is no audit's or dictionary's folder,", name, known)


def _cited(content: Any) -> Iterator[str]:
    """Every key in a list named "references", however deep."""
    if isinstance(content, dict):
        yield from content.get("references") or []
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _cited(value)
