"""Concept labels of subword tokens, aligned by character spans."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.explain.concepts.library import LIBRARY
from modelassay.explain.concepts.python import python_concepts
from modelassay.explain.concepts.source import characters


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
    if characters_parsed < characters_seen / 2 or not known.any():
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
