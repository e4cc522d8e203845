"""Which concept of the library each latent stands for, and how much of that is chance."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.evidence.intervals import document_interval
from modelassay.explain.concepts import ConceptLabels
from modelassay.explain.half import Half, halves

THRESHOLD_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Quantiles of a latent's active values tried as thresholds; 0 is "active at all" (ours)."""
N_RANKS = 3
MIN_ACTIVE = 10
"""A latent needs so many active tokens in each half to be matched (ours)."""
N_SHIFTS = 5
"""Shifted copies of the labels that make the null (ours)."""
_ROUNDING = 1e-6  # an excess of F1 below it is float32 noise: a latent that is always active


@dataclass(frozen=True, kw_only=True, slots=True)
class ConceptMatches:
    """The best concepts of each latent, best first, measured on documents that chose nothing.

    Where a latent is too rarely active to be matched, or nothing exceeds chance, `indices` is -1
    and the measurements are NaN.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    indices: Int[Tensor, "latent rank"]
    """Into `names`."""
    thresholds: Float[Tensor, "latent rank"]
    """The latent predicts the concept where its value is above this."""
    precision: Float[Tensor, "latent rank"]
    recall: Float[Tensor, "latent rank"]
    f1: Float[Tensor, "latent rank"]
    low: Float[Tensor, "latent rank"]
    """95 % interval of the F1, by bootstrap over documents."""
    high: Float[Tensor, "latent rank"]
    null_f1: Float[Tensor, " latent"]
    """The best F1 that the same search finds in labels shifted within their documents, taken over
    `N_SHIFTS` shifts: what choosing among many concepts gives by chance."""
    n: Int[Tensor, " latent"]
    """Active tokens in the half of the documents that the F1 is measured on."""


def match_concepts(
    codes: Codes,
    contexts: TokenizedCorpus,
    labels: ConceptLabels | None,
    generator: torch.Generator,
) -> ConceptMatches | None:
    """Find the concepts that "the latent is above a threshold" predicts best.

    On one half of the documents, each latent's concepts and thresholds are ranked by how far F1
    exceeds that of an independent predictor with the same rate, ``2 a p / (a + p)`` with the rates
    `a` of the prediction and `p` of the concept: plain F1 would give every dense latent the
    commonest concept. On the other half, precision, recall and F1 are measured. Tokens where a
    concept is unknown do not count for it. A single document cannot be halved, and gives None.

    Args:
        codes: values at the measured tokens of `contexts`, in their order; a negative value
            predicts nothing.
        contexts: held-out contexts.
        labels: of these contexts; None (a corpus that cannot be labelled) gives None.
        generator: halves the documents, shifts the labels and draws the bootstrap.

    Raises:
        ShapeError: if the codes are not those of these contexts.
    """
    if labels is None:
        return None
    if codes.n_tokens != contexts.n_tokens:
        raise ShapeError(
            f"Codes must have one row for each measured token; got {codes.n_tokens} rows for "
            f"{contexts.n_tokens} tokens. Encode the activations of these very contexts."
        )
    choosing, measuring = halves(codes, contexts, labels, generator)
    if measuring.n_documents == 0:
        return None
    enough = np.minimum(choosing.counts(), measuring.counts()) >= MIN_ACTIVE
    search = _Search(choosing)
    null = torch.zeros(codes.width)
    for _ in range(N_SHIFTS):
        chance = search.best(choosing.shifted(generator))
        tables = _tables(measuring.shifted(generator), chance, rank=0)
        null = torch.maximum(null, _f1(*(t.sum(0) for t in tables)).nan_to_num().float())
    choice = search.best(choosing)
    ranks = [_measure(_tables(measuring, choice, rank), generator) for rank in range(N_RANKS)]
    missing = torch.from_numpy((choice.concepts < 0) | ~enough[:, None])
    measured = {
        name: torch.stack([rank[name] for rank in ranks], dim=1).masked_fill(missing, torch.nan)
        for name in ranks[0]
    }
    return ConceptMatches(
        names=labels.names,
        descriptions=labels.descriptions,
        indices=torch.from_numpy(choice.concepts).masked_fill(missing, -1),
        thresholds=torch.from_numpy(choice.thresholds).masked_fill(missing, torch.nan),
        null_f1=null.masked_fill(torch.from_numpy(~enough), torch.nan),
        n=torch.from_numpy(measuring.counts()),
        **measured,
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Concepts and thresholds by latent and rank; concept -1 where none exceeds chance."""

    concepts: NDArray[np.int64]
    thresholds: NDArray[np.float32]


class _Search:
    """Counts latents against concepts at all thresholds at once."""

    def __init__(self, half: Half) -> None:
        self._thresholds = _thresholds(half)
        self._n_steps = self._thresholds.shape[1]
        # A value belongs to the highest threshold that it exceeds, and counts for all below.
        steps = (half.values[:, None] > self._thresholds[half.latents]).sum(1) - 1
        self._table = csr_matrix(
            (
                np.ones(len(steps), dtype=np.float32),
                (half.latents * self._n_steps + steps, half.rows),
            ),
            shape=(half.width * self._n_steps, len(half.document)),
        )
        self._active = self._above(np.asarray(self._table.sum(1)))

    def best(self, half: Half) -> _Choice:
        """The concepts, each at its best threshold, whose F1 exceeds chance most."""
        hits = self._count(half.held)
        # Few tokens are unknown: counting those keeps the product sparse.
        predicted = self._active - self._count(~half.known)
        positives, total = half.held.sum(0), half.known.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            chance = 2 * predicted * (positives / total) / (predicted + positives)
            excess = np.nan_to_num(2 * hits / (predicted + positives) - chance)
        step = excess.argmax(1)
        best = np.take_along_axis(excess, step[:, None], 1)[:, 0]
        ranked = np.argsort(-best, axis=1, kind="stable")[:, :N_RANKS]
        return _Choice(
            concepts=np.where(np.take_along_axis(best, ranked, 1) > _ROUNDING, ranked, -1),
            thresholds=np.take_along_axis(self._thresholds, np.take_along_axis(step, ranked, 1), 1),
        )

    def _count(self, labels: NDArray[np.bool_]) -> NDArray[np.float32]:
        """[latent, threshold, concept]: labelled tokens on which the latent is above it."""
        return self._above((self._table @ csr_matrix(labels, dtype=np.float32)).toarray())

    def _above(self, by_step: NDArray[np.float32]) -> NDArray[np.float32]:
        table = by_step.reshape(-1, self._n_steps, by_step.shape[1])
        return table[:, ::-1].cumsum(1)[:, ::-1]


def _thresholds(half: Half) -> NDArray[np.float32]:
    """[latent, threshold], ascending, from 0."""
    ordered = np.append(half.values[np.lexsort((half.values, half.latents))], np.float32(0))
    counts = half.counts()
    starts = np.cumsum(counts) - counts
    columns: list[NDArray[np.float32]] = []
    for quantile in THRESHOLD_QUANTILES:
        below = np.floor(quantile * counts).astype(np.int64)  # values not above the threshold
        columns.append(np.where(below > 0, ordered[starts + np.maximum(below - 1, 0)], 0))
    return np.stack(columns, axis=1)


def _tables(half: Half, choice: _Choice, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hits, predictions and positives, each [document, latent], of the concepts of one rank."""
    concepts = choice.concepts[:, rank]
    above = half.values > choice.thresholds[half.latents, rank]
    rows, latents = half.rows[above], half.latents[above]
    cells = half.document[rows] * half.width + latents
    shape = (half.n_documents, half.width)

    def count(labels: NDArray[np.bool_]) -> Tensor:
        weights = labels[rows, concepts[latents]]
        return torch.from_numpy(
            np.bincount(cells, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)
        )

    n_tokens = len(half.document)
    owners = csr_matrix((np.ones(n_tokens), (half.document, np.arange(n_tokens))))
    positives = (owners @ half.held.astype(np.float64))[:, concepts]
    return count(half.held), count(half.known), torch.from_numpy(positives)


def _f1(hits: Tensor, predicted: Tensor, positives: Tensor) -> Tensor:
    return 2 * hits / (predicted + positives)


def _measure(
    tables: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> dict[str, Float[Tensor, " latent"]]:
    hits, predicted, positives = (table.sum(0) for table in tables)
    interval = document_interval(tables, _f1, generator)
    return {
        "precision": (hits / predicted).float(),
        "recall": (hits / positives).float(),
        "f1": _f1(hits, predicted, positives).float(),
        "low": interval.low,
        "high": interval.high,
    }
