"""The papers that methods come from; `modelassay cite` prints those that a run used."""

from collections.abc import Iterable

from modelassay.core.errors import UnknownNameError
from modelassay.core.papers.dictionaries import DICTIONARIES
from modelassay.core.papers.features import FEATURES
from modelassay.core.papers.interventions import INTERVENTIONS
from modelassay.core.papers.lenses import LENSES
from modelassay.core.papers.probing import PROBING
from modelassay.core.papers.reference import Reference
from modelassay.core.papers.statistics import STATISTICS
from modelassay.core.papers.vision import VISION

_ALL = (*FEATURES, *DICTIONARIES, *STATISTICS, *PROBING, *LENSES, *INTERVENTIONS, *VISION)

REFERENCES: dict[str, Reference] = {reference.key: reference for reference in _ALL}


def bibliography(keys: Iterable[str]) -> str:
    """BibTeX of the given keys, each once, sorted.

    Raises:
        UnknownNameError: for a key that is not in `REFERENCES`.
    """
    wanted = sorted(set(keys))
    for key in wanted:
        if key not in REFERENCES:
            raise UnknownNameError("A reference", key, REFERENCES)
    return "\n\n".join(REFERENCES[key].bibtex for key in wanted)
