"""What the page's script needs of a catalogue or a scatter: names as JSON, numbers as a pack."""

import json
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from modelassay.audit.parts import Concepts, Examples, LatentDetails
from modelassay.report.axes import Axis
from modelassay.report.pack import Pack
from modelassay.report.parts import Catalogue, EvidenceColumn, Question, Scatter
from modelassay.report.wording import ANSWER_CLASSES

_ANSWERS = tuple(c.key for c in ANSWER_CLASSES)


def embeddable(content: dict[str, Any]) -> str:
    """JSON that may stand inside a script element whatever its strings hold.

    No character of it can end the element or begin a comment, and all of it is ASCII.
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def scatter_payload(scatter: Scatter, pack: Pack) -> dict[str, Any]:
    """The points of a scatter plot."""
    return {
        "xTitle": scatter.x_title,
        "yTitle": scatter.y_title,
        "ratio": None if math.isnan(scatter.ratio) else scatter.ratio,
        "x": pack.exact(scatter.x),
        "y": pack.exact(scatter.y),
        "nulls": [
            {"key": s.key, "title": s.title, "x": pack.exact(s.x), "y": pack.exact(s.y)}
            for s in scatter.nulls
        ],
    }


def catalogue_payload(catalogue: Catalogue, pack: Pack) -> dict[str, Any]:
    """All latents' evidence and details."""
    vocabulary = _Vocabulary(catalogue)
    classes = [c.key for c in catalogue.classes]
    reasons = {reason: i for i, reason in enumerate(dict.fromkeys(catalogue.reasons))}
    return {
        "width": len(catalogue.verdicts),
        "classes": [{"key": c.key, "title": c.title} for c in catalogue.classes],
        "answerKeys": _ANSWERS,
        "questions": [
            {
                "key": q.key,
                "title": q.title,
                "asks": q.asks,
                "says": q.says,
                "evidence": _bearing_on(q, catalogue.columns),
                "answers": pack.counts(_codes(catalogue.answers[q.key], _ANSWERS)),
            }
            for q in catalogue.questions
        ],
        "verdicts": pack.counts(_codes(catalogue.verdicts, tuple(classes))),
        "reasons": list(reasons),
        "reason": pack.counts(np.array([reasons[r] for r in catalogue.reasons])),
        "columns": [_column(column, pack) for column in catalogue.columns],
        "details": _details(catalogue.details, vocabulary, pack),
        "vocabulary": vocabulary.strings,
    }


class _Vocabulary:
    """Only the tokens that the page shows, renumbered."""

    def __init__(self, catalogue: Catalogue) -> None:
        details = catalogue.details
        shown = (details.examples.tokens, details.promoted, details.suppressed)
        self._ids = np.unique(np.concatenate([ids.numpy().ravel() for ids in shown]))
        self.strings = [catalogue.vocabulary[i] for i in self._ids]

    def renumber(self, ids: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The page's number of each token."""
        return np.searchsorted(self._ids, ids)


def _bearing_on(question: Question, columns: tuple[EvidenceColumn, ...]) -> list[str]:
    """Names of the columns behind a question, the deciding one first."""
    return [
        column.name
        for wanted in question.evidence
        for column in columns
        if column.name == wanted or column.name.startswith((f"{wanted}_", f"{wanted}:"))
    ]


def _codes(words: tuple[str, ...], known: tuple[str, ...]) -> Int[np.ndarray, " latent"]:
    numbers = {word: i for i, word in enumerate(known)}
    return np.array([numbers[word] for word in words])


def _column(column: EvidenceColumn, pack: Pack) -> dict[str, Any]:
    return {
        "name": column.name,
        "title": column.title,
        "unit": column.unit,
        "better": column.better,
        "nullDescription": column.null_description,
        "threshold": column.threshold,
        "axis": axis_payload(column.axis),
        "value": pack.exact(column.value),
        "low": pack.exact(column.low),
        "high": pack.exact(column.high),
        "null": pack.exact(column.null),
        "p": None if column.p_value is None else pack.exact(column.p_value),
        "q": None if column.q_value is None else pack.exact(column.q_value),
        "n": pack.counts(column.n),
    }


def axis_payload(axis: Axis) -> dict[str, Any]:
    """An axis and its ticks."""
    return {"low": axis.low, "high": axis.high, "log": axis.log, "ticks": axis.ticks()}


def _details(details: LatentDetails, vocabulary: _Vocabulary, pack: Pack) -> dict[str, Any]:
    null = details.neighbour_null
    return {
        "examples": _examples(details.examples, len(details.promoted), vocabulary, pack),
        "bins": details.histogram_counts.shape[1],
        "histogram": pack.counts(details.histogram_counts.numpy()),
        "edges": _edges(details.histogram_edges.numpy(), pack),
        "ranks": details.promoted.shape[1],
        "promoted": pack.counts(vocabulary.renumber(details.promoted.numpy())),
        "promotedLogits": pack.rough(details.promoted_logits.numpy()),
        "suppressed": pack.counts(vocabulary.renumber(details.suppressed.numpy())),
        "suppressedLogits": pack.rough(details.suppressed_logits.numpy()),
        "near": details.neighbours.shape[1],
        "neighbours": pack.counts(details.neighbours.numpy()),
        "cosines": pack.rough(details.neighbour_cosines.numpy()),
        "neighbourNull": None if math.isnan(null) else null,
        "concepts": None if details.concepts is None else _concepts(details.concepts, pack),
    }


def _edges(edges: Float[np.ndarray, "latent edge"], pack: Pack) -> list[int | str]:
    # Bins of equal width: the ends say all, in a tenth of the room.
    return pack.exact(np.stack([edges[:, 0], edges[:, -1]], axis=1))


def _examples(
    examples: Examples, width: int, vocabulary: _Vocabulary, pack: Pack
) -> dict[str, Any]:
    latents, groups = examples.latents.numpy(), examples.groups.numpy()
    order = np.lexsort((np.arange(len(latents)), groups, latents))
    lengths = np.diff(examples.value_starts.numpy())[order]
    starts = examples.value_starts.numpy()[:-1][order]
    first = np.cumsum(lengths) - lengths
    moved = np.repeat(starts - first, lengths) + np.arange(lengths.sum())
    names = {name: i for i, name in enumerate(dict.fromkeys(examples.documents))}
    return {
        "perLatent": pack.counts(np.bincount(latents, minlength=width)),
        "groups": pack.counts(groups[order]),
        "contexts": pack.counts(examples.contexts.numpy()[order]),
        "starts": pack.counts(examples.starts.numpy()[order]),
        "lengths": pack.counts(examples.lengths.numpy()[order]),
        "peaks": pack.counts(examples.peaks.numpy()[order]),
        "perExample": pack.counts(lengths),
        "offsets": pack.counts(examples.offsets.numpy()[moved]),
        "values": pack.rough(examples.values.numpy()[moved]),
        "tokens": pack.counts(vocabulary.renumber(examples.tokens.numpy())),
        "contextTokens": examples.tokens.shape[1],
        "groupNames": list(examples.group_names) or None,
        "silentFrom": examples.silent_from,
        "documents": list(names),
        "document": pack.counts(np.array([names[d] for d in examples.documents], dtype=np.int64)),
    }


def _concepts(concepts: Concepts, pack: Pack) -> dict[str, Any]:
    return {
        "names": concepts.names,
        "descriptions": concepts.descriptions,
        "ranks": concepts.indices.shape[1],
        "indices": pack.counts(concepts.indices.numpy()),
        "f1": pack.exact(concepts.f1.numpy()),
        "low": pack.exact(concepts.low.numpy()),
        "high": pack.exact(concepts.high.numpy()),
        "null": pack.exact(concepts.null_f1.numpy()),
    }
