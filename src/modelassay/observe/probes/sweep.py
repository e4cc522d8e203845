"""Cheap linear probes of many concepts at many sites, with a score that makes them comparable.

A concept that is true or false is read by logistic regression and scored by ``2 AUROC - 1``; a
graded one is read by ridge regression and scored by ``R^2``. Both are 0 for who knows nothing and 1
for a perfect reader. The penalty is chosen on training documents, and so is the figure by which a
site may be chosen: test items choose nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.observe.probes.controls import bags_of_tokens
from modelassay.observe.probes.probe import LinearHead, Scaling
from modelassay.observe.probes.ridge import ridge_regressions
from modelassay.observe.probes.scores import weighted_auroc
from modelassay.observe.probes.softmax_regression import softmax_regression
from modelassay.observe.probes.sweep_items import (
    N_FOLDS,
    ConceptItems,
    prefixes_split,
    token_alone,
)
from modelassay.subjects.site import Site

PENALTIES = (0.3, 0.03, 0.003)
"""Candidates, from strong to weak (ours)."""
MOST_TOKENS = 200
"""Columns of the bag of tokens: the commonest tokens of the training items (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearReading:
    """What a linear probe says of the test items."""

    predictions: Float[Tensor, " test"]
    """Log-odds, or sizes."""
    l2: float
    validation: float
    """Score on the held-out folds of the training items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One concept at one site of one model; scores as they are and in resamples of documents."""

    score: Float[Tensor, " resample"]
    task: Float[Tensor, " resample"]
    """On a control task, read with the same penalty."""
    validation: float


def score(
    predictions: Float[Tensor, " item"],
    values: Float[Tensor, " item"],
    weights: Float[Tensor, "resample item"],
    *,
    graded: bool,
) -> Float[Tensor, " resample"]:
    """``2 AUROC - 1``, or ``R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2``, in each resample.

    NaN where a resample holds one class, or one size.

    Reference: Somers 1962 (2 AUROC - 1).
    """
    if not graded:
        return 2 * weighted_auroc(predictions, values > 0.5, weights) - 1
    total = weights.sum(1, keepdim=True)
    centred = values[None] - weights @ values[:, None] / total
    spread = (weights * centred.square()).sum(1)
    missed = weights @ (values - predictions).square()
    return torch.where(spread > 0, 1 - missed / spread, torch.nan)


def read_linearly(
    train: Float[Tensor, "train width"],
    test: Float[Tensor, "test width"],
    values: Float[Tensor, " train"],
    folds: Int[Tensor, " train"],
    *,
    graded: bool,
    penalties: Sequence[float] = PENALTIES,
) -> LinearReading:
    """Fit a linear probe; of several penalties take the one with the smallest loss on held-out
    folds (log-loss, or squared error)."""
    chosen = 0
    validation = torch.nan
    if len(penalties) > 1:
        held = _held_out(train, values, folds, penalties, graded)
        known = held.isfinite().all(0)
        losses = _losses(held[:, known], values[known], graded)
        chosen = int(losses.argmin())
        every = torch.ones(1, int(known.sum()), dtype=torch.float64)
        validation = float(score(held[chosen, known], values[known], every, graded=graded))
    scaling = Scaling.of(train)
    # A path from the strongest penalty: each fit starts where the one before it ended.
    head = _path(scaling(train), values, penalties[: chosen + 1], graded)[-1]
    predictions = scaling(test) @ head.weight[:, 0] + head.bias[0]
    return LinearReading(predictions=predictions, l2=penalties[chosen], validation=validation)


def probe_cell(items: ConceptItems, activations: Float[Tensor, "item width"]) -> Cell:
    """Score a linear probe of the concept, and the same probe on the control task."""
    train, test = activations[items.train], activations[items.test]
    found = read_linearly(train, test, items.values[items.train], items.folds, graded=items.graded)
    task_values = items.task_values[items.train]
    task = torch.full((len(items.weights),), torch.nan, dtype=torch.float64)
    if len(task_values.unique()) > 1:
        remembered = read_linearly(
            train, test, task_values, items.folds, graded=items.graded, penalties=(found.l2,)
        )
        task = score(
            remembered.predictions, items.task_values[items.test], items.weights,
            graded=items.graded,
        )  # fmt: skip
    values = items.values[items.test]
    return Cell(
        score=score(found.predictions, values, items.weights, graded=items.graded),
        task=task,
        validation=found.validation,
    )


def probe_all(
    items: Sequence[ConceptItems], activations: Mapping[Site, Tensor]
) -> list[list[Cell]]:
    """The cells of all concepts (outer) at all sites (inner).

    Args:
        activations: at each site, those of all concepts' items one after another.
    """
    cells: list[list[Cell]] = []
    start = 0
    for each in items:
        rows = slice(start, start + len(each))
        cells.append([probe_cell(each, values[rows]) for values in activations.values()])
        start += len(each)
    return cells


def score_of_token(items: ConceptItems) -> Float[Tensor, " resample"]:
    """What the token alone tells: the score of a table of tokens."""
    return score(token_alone(items), items.values[items.test], items.weights, graded=items.graded)


def score_of_bag(
    items: ConceptItems, contexts: TokenizedCorpus, *, most: int = MOST_TOKENS
) -> Float[Tensor, " resample"]:
    """What the tokens read so far tell without their order: a linear probe of their counts."""
    bags = bags_of_tokens(prefixes_split(items, contexts), most=most)
    found = read_linearly(
        bags.train.activations, bags.test.activations, items.values[items.train], items.folds,
        graded=items.graded,
    )  # fmt: skip
    values = items.values[items.test]
    return score(found.predictions, values, items.weights, graded=items.graded)


def _held_out(
    train: Tensor, values: Tensor, folds: Tensor, penalties: Sequence[float], graded: bool
) -> Float[Tensor, "penalty train"]:
    """Predictions for each training item by a probe that did not see its fold; NaN without."""
    held = torch.full((len(penalties), len(train)), torch.nan, dtype=torch.float64)
    for fold in range(N_FOLDS):
        inside, outside = folds == fold, folds != fold
        if not bool(inside.any()) or len(values[outside].unique()) < 2:
            continue
        scaling = Scaling.of(train[outside])
        heads = _path(scaling(train[outside]), values[outside], penalties, graded)
        inputs = scaling(train[inside])
        for number, head in enumerate(heads):
            held[number, inside] = inputs @ head.weight[:, 0] + head.bias[0]
    return held


def _path(
    inputs: Tensor, values: Tensor, penalties: Sequence[float], graded: bool
) -> Sequence[LinearHead]:
    """A head for each penalty."""
    if graded:
        return ridge_regressions(inputs, values, penalties)
    heads: list[LinearHead] = []
    for l2 in penalties:
        start = heads[-1] if heads else None
        fitted = softmax_regression(inputs, (values > 0.5).long(), n_classes=2, l2=l2, start=start)
        heads.append(fitted.head)
    return heads


def _losses(
    predictions: Float[Tensor, "penalty item"], values: Float[Tensor, " item"], graded: bool
) -> Float[Tensor, " penalty"]:
    if graded:
        return (predictions - values).square().mean(1)
    return functional.softplus(torch.where(values > 0.5, -predictions, predictions)).mean(1)
