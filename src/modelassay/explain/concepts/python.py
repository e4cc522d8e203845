"""The concepts of one Python text, character by character."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelassay.explain.concepts.lexer import lex
from modelassay.explain.concepts.lexical import add_lexical_concepts, formatted_strings
from modelassay.explain.concepts.library import LIBRARY
from modelassay.explain.concepts.source import UNKNOWN, Source
from modelassay.explain.concepts.spans import Spans
from modelassay.explain.concepts.syntactic import add_syntactic_concepts, parse


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterConcepts:
    """Which concepts hold at which character of one text."""

    found: Spans
    """In offsets of the normalised source."""
    unknown: Spans
    source: Source
    parsed: bool
    """True if the text is valid Python of the running version."""

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Labels and whether they are known, [position, concept], at characters of the text.

        A position outside the text is unknown in every concept.
        """
        offset_of = np.append(self.source.offset_of, UNKNOWN)
        inside = (positions >= 0) & (positions < len(offset_of))
        offsets = offset_of[np.where(inside, positions, -1)]
        outside = offsets == UNKNOWN
        labels = np.stack([self.found.cover(c.name, offsets) for c in LIBRARY], axis=1)
        unknown = np.stack([self.unknown.cover(c.name, offsets) for c in LIBRARY], axis=1)
        labels &= ~outside[:, None]
        return labels, labels | ~(unknown | outside[:, None])


def python_concepts(text: str) -> CharacterConcepts:
    """The concepts of one Python file, character by character.

    What `tokenize` decides is known up to the first place where it stumbles; what `ast` decides is
    known only if the whole text parses. Unknown is never reported as absent.
    """
    source = Source(text)
    found, unknown = Spans(), Spans()
    lexed = lex(source)
    add_lexical_concepts(source, lexed, found, unknown)
    tree = parse(source.text)
    if tree is not None:
        add_syntactic_concepts(source, tree, lexed.opening, found)
    hidden = formatted_strings(lexed)
    for concept in LIBRARY:
        trusted = lexed.end if concept.source == "tokens" or tree is not None else 0
        unknown.add(concept.name, trusted, len(source.text))
        if concept.hidden_in_fstrings:
            for start, end in hidden:
                unknown.add(concept.name, start, end)
    return CharacterConcepts(found=found, unknown=unknown, source=source, parsed=tree is not None)
