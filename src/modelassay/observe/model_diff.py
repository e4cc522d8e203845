"""Which features appeared, vanished or moved between a base model and its fine-tuned twin.

One dictionary reads both models on the same contexts, so that every document is its own control.
What the twin's dictionary has and the base's lacks may still be in the base model: see
`model_diff_matching` and `model_diff_scaling` before calling a feature new.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from modelassay.core.errors import TooFewTokensError
from modelassay.observe.contrast import FDR, Contrast, contrast
from modelassay.observe.contrast_documents import Responses
from modelassay.observe.contrast_statistics import N_PERMUTATIONS, adjusted

Kind = Literal["appeared", "vanished", "stronger", "weaker", "unchanged", "silent"]
KINDS: tuple[Kind, ...] = (
    "appeared", "vanished", "stronger", "weaker", "unchanged", "silent",
)  # fmt: skip
GONE = 0.1
"""A feature has appeared (vanished) if its rate in the other model is below this share (ours)."""
_MIN_DOCUMENTS = 6  # 2^-5: with fewer, no sign-flip reaches 0.05 two-sided
_CHUNK = 500


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelChange:
    """How each unit's responses changed from base to tuned."""

    base_rates: Float[np.ndarray, " unit"]
    """Mean over documents of the share of tokens on which the unit is active."""
    tuned_rates: Float[np.ndarray, " unit"]
    change: Float[np.ndarray, " unit"]
    """Mean over documents of the mean value, tuned less base."""
    low: Float[np.ndarray, " unit"]
    """Lower end of its 95 % interval, over documents."""
    high: Float[np.ndarray, " unit"]
    effect: Float[np.ndarray, " unit"]
    """The change in standard deviations of the documents' changes; 0 where none changed."""
    p_value: Float[np.ndarray, " unit"]
    """From the signs of the documents' changes flipped at random, two-sided."""
    q_value: Float[np.ndarray, " unit"]
    n_documents: int
    fdr: float

    @property
    def significant(self) -> Bool[np.ndarray, " unit"]:
        """Whether the change is a discovery at the rate."""
        return self.q_value <= self.fdr

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What became of each unit. Without a discovery it is unchanged, as far as can be told."""
        return tuple(self._kind(unit) for unit in range(len(self.change)))

    def of_kind(self, kind: Kind) -> Int[np.ndarray, " unit"]:
        """Units of a kind, the largest effect first."""
        found = np.array([i for i, k in enumerate(self.kinds) if k == kind], dtype=np.int64)
        return found[np.argsort(-np.abs(self.effect[found]), kind="stable")]

    def _kind(self, unit: int) -> Kind:
        base, tuned = self.base_rates[unit], self.tuned_rates[unit]
        if base == tuned == 0:
            return "silent"
        if not self.significant[unit]:
            return "unchanged"
        if base < GONE * tuned:
            return "appeared"
        if tuned < GONE * base:
            return "vanished"
        return "stronger" if self.change[unit] > 0 else "weaker"


def model_change(
    base: Responses,
    tuned: Responses,
    generator: torch.Generator,
    *,
    fdr: float = FDR,
    n_permutations: int = N_PERMUTATIONS,
) -> ModelChange:
    """Compare the responses of the same units in two models to the same documents.

    Under the null, a document's change is as likely as its negative. Two identical models have no
    change at all: every p-value is 1.

    Args:
        base: responses in the base model.
        tuned: in the fine-tuned one.
        generator: flips the signs.
        fdr: false discovery rate.
        n_permutations: random sign patterns.

    Raises:
        ShapeError: if the items or the units differ.
        TooFewTokensError: if there are fewer than six documents.
    """
    owners, owner = np.unique(tuned.groups, return_inverse=True)
    n = len(owners)
    if n < _MIN_DOCUMENTS:
        raise TooFewTokensError(
            f"A comparison must have {_MIN_DOCUMENTS} documents; got {n}. Add documents."
        )
    gaps = tuned.minus(base).means
    # A document's items are averaged: they are not independent of each other.
    items = np.bincount(owner)[:, None]
    change = np.zeros((n, gaps.shape[1]))
    np.add.at(change, owner, gaps)
    change /= items
    mean, spread = change.mean(0), change.std(0, ddof=1)
    half = 1.96 * spread / np.sqrt(n)
    p = _sign_flip_p(change, generator, n_permutations)
    return ModelChange(
        base_rates=base.rates.mean(0),
        tuned_rates=tuned.rates.mean(0),
        change=mean,
        low=mean - half,
        high=mean + half,
        effect=np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 0),
        p_value=p,
        q_value=adjusted(p),
        n_documents=n,
        fdr=fdr,
    )


def raised_responses(
    base: Responses,
    tuned: Responses,
    chosen: Bool[np.ndarray, " item"],
    generator: torch.Generator,
    *,
    fdr: float = FDR,
    n_permutations: int = N_PERMUTATIONS,
) -> Contrast:
    """Whether fine-tuning raised the response to chosen prompts more than to the others.

    A contrast of the changes: a unit that grew everywhere alike is no answer to the question.

    Args:
        base: responses in the base model, one item a prompt.
        tuned: to the same prompts in the fine-tuned one.
        chosen: the prompts asked about.
        generator: splits and permutes.
        fdr: false discovery rate.
        n_permutations: see `contrast`.

    Raises:
        ShapeError: if the items or the units differ.
        TooFewTokensError: if there are too few prompts of a side.
    """
    return contrast(tuned.minus(base), chosen, generator, fdr=fdr, n_permutations=n_permutations)


def _sign_flip_p(
    change: Float[np.ndarray, "document unit"], generator: torch.Generator, count: int
) -> Float[np.ndarray, " unit"]:
    observed = np.abs(change.sum(0))
    tolerance = 1e-9 * np.abs(change).sum(0)
    exceeding = np.zeros(change.shape[1])
    for start in range(0, count, _CHUNK):
        size = (min(_CHUNK, count - start), len(change))
        signs = torch.randint(2, size, generator=generator).double().numpy() * 2 - 1
        exceeding += (np.abs(signs @ change) >= observed - tolerance).sum(0)
    return (1 + exceeding) / (1 + count)
