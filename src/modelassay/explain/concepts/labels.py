"""Concept labels of subword tokens, aligned by character spans."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.explain.concepts.lexer import lex
from modelassay.explain.concepts.lexical import add_lexical_concepts, formatted_strings
from modelassay.explain.concepts.library import LIBRARY
from modelassay.explain.concepts.source import UNKNOWN, Source, characters
from modelassay.explain.concepts.spans import Spans
from modelassay.explain.concepts.syntactic import add_syntactic_concepts, parse


@dataclass(frozen=True, kw_only=True, slots=True)
class ConceptLabels:
    """Which concepts hold at which token."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    """One sentence per concept."""
    labels: Bool[Tensor, "context token concept"]
    """True where the concept holds; False elsewhere, and where it is unknown."""
    known: Bool[Tensor, "context token concept"]
    """False where the file does not say: unparsable code, padding, BOS."""


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


def concept_labels(contexts: TokenizedCorpus) -> ConceptLabels | None:
    """Concept labels for every token, or None if the corpus is not Python.

    A token has the label of its first character that is not white space, or, if it is all white
    space, of its first character: the token "\\n    " is the line break that ends the line before
    it, and " =" is the assignment sign. A corpus counts as Python if the documents that parse hold
    at least half of its characters.
    """
    shape = (*contexts.tokens.shape, len(LIBRARY))
    labels = np.zeros(shape, dtype=bool)
    known = np.zeros(shape, dtype=bool)
    spans = contexts.spans.numpy()
    owners = contexts.document.numpy()
    characters_seen = characters_parsed = 0
    for index in np.unique(owners).tolist():
        text = contexts.corpus.documents[index].text
        concepts = python_concepts(text)
        characters_seen += len(text)
        characters_parsed += len(text) * concepts.parsed
        rows = np.flatnonzero(owners == index)
        positions = first_characters(text, spans[rows].reshape(-1, 2))
        at, sure = concepts.at(positions)
        labels[rows] = at.reshape(len(rows), *shape[1:])
        known[rows] = sure.reshape(len(rows), *shape[1:])
    if characters_parsed < characters_seen / 2:
        return None
    return ConceptLabels(
        names=tuple(c.name for c in LIBRARY),
        descriptions=tuple(c.description for c in LIBRARY),
        labels=torch.from_numpy(labels),
        known=torch.from_numpy(known),
    )


def first_characters(text: str, spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each span's first character that is not white space, or of its first one.

    -1 for empty spans.
    """
    codes = characters(text)
    present, inverse = np.unique(codes, return_inverse=True)
    white = np.array([chr(code).isspace() for code in present.tolist()], dtype=bool)[inverse]
    black = np.append(np.flatnonzero(~white), len(text))
    start, end = spans[:, 0], spans[:, 1]
    first = black[np.searchsorted(black, np.clip(start, 0, len(text)))]
    positions = np.where(first < end, first, start)
    return np.where(end > start, positions, -1)
