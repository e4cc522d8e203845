"""Logistic probes: linear, L2-penalised, the penalty chosen by group-aware cross-validation."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.observe.probes.data import ProbeData, group_folds
from modelassay.observe.probes.probe import LinearHead, Probe, Scaling
from modelassay.observe.probes.softmax_regression import softmax_regression

PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
"""Candidates, from strong to weak: each fit starts where the stronger one ended (ours)."""
N_FOLDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Logistic:
    """Multinomial logistic regression on standardised activations.

    ``min_W,b mean_i -log softmax(W x_i + b)[y_i] + l2 / 2 |W|^2``, in float64 to a certified
    distance from the minimum. Of several penalties, that with the smallest log-loss on held-out
    folds is taken; folds divide groups, never items.
    """

    l2: float | tuple[float, ...] = PENALTIES
    """A penalty, or candidates for cross-validation."""
    n_folds: int = N_FOLDS
    balanced: bool = False
    """Weight items so that every class counts alike."""

    @property
    def name(self) -> str:
        """Named in reports."""
        return "logistic"

    def fit(self, data: ProbeData, generator: torch.Generator) -> Probe:
        """Fit to training items.

        With fewer groups than two per fold nothing can be held out: then the strongest candidate
        but one is taken.

        Raises:
            ValueRangeError: if there is one class only, no candidate, or no convergence.
        """
        data.require_classes()
        l2 = self._choose(data, self._candidates(), generator)
        scaling = Scaling.of(data.activations)
        fitted = softmax_regression(
            scaling(data.activations),
            data.labels,
            n_classes=data.n_classes,
            l2=l2,
            weights=self._weights(data.labels),
        )
        return Probe(
            method=self.name,
            classes=data.classes,
            scaling=scaling,
            head=fitted.head,
            trained_on=data.named_groups,
            facts={"l2": l2, "gap": fitted.gap},
        )

    def _candidates(self) -> list[float]:
        """From the strongest penalty to the weakest."""
        if not isinstance(self.l2, tuple):
            return [self.l2]
        if not self.l2:
            raise ValueRangeError("l2 must hold at least one penalty; got none. Give 0.01.")
        return sorted(self.l2, reverse=True)

    def _choose(
        self, data: ProbeData, candidates: list[float], generator: torch.Generator
    ) -> float:
        """The candidate with the smallest log-loss on held-out groups."""
        if len(candidates) == 1 or len(data.named_groups) < 2 * self.n_folds:
            return candidates[min(1, len(candidates) - 1)]
        folds = group_folds(data, self.n_folds, generator)
        losses = torch.zeros(len(candidates), dtype=torch.float64)
        for fold in range(self.n_folds):
            held = folds == fold
            train, test = data.take((~held).nonzero()[:, 0]), data.take(held.nonzero()[:, 0])
            if len(train.labels.unique()) < 2 or len(test) == 0:
                continue
            losses += self._losses(train, test, candidates)
        return candidates[int(losses.argmin())]

    def _losses(
        self, train: ProbeData, test: ProbeData, candidates: list[float]
    ) -> Float[Tensor, " candidate"]:
        """Summed log-loss of each candidate on a fold, each fit started at the one before."""
        scaling = Scaling.of(train.activations)
        inputs, held_out = scaling(train.activations), scaling(test.activations)
        item_weights = self._weights(test.labels)
        head: LinearHead | None = None
        losses: list[Tensor] = []
        for l2 in candidates:
            head = softmax_regression(
                inputs, train.labels, n_classes=train.n_classes, l2=l2,
                weights=self._weights(train.labels), start=head,
            ).head  # fmt: skip
            log_shares = head.log_probabilities(held_out).gather(1, test.labels[:, None])[:, 0]
            losses.append(-(item_weights * log_shares).sum())
        return torch.stack(losses)

    def _weights(self, labels: Int[Tensor, " item"]) -> Float[Tensor, " item"]:
        if not self.balanced:
            return torch.ones(len(labels), dtype=torch.float64)
        return 1 / torch.bincount(labels).double()[labels]
