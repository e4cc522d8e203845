"""k-sparse probes: how few coordinates carry a label."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.probe import LinearHead, Probe, Scaling
from modelassay.observe.probes.softmax_regression import softmax_regression

Choice = Literal["mean_difference", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparse:
    """A balanced logistic probe on k coordinates.

    They are those with the largest ``|mu_1 - mu_0|`` on the training items, of standardised
    activations, or random ones: the control that says what the choice was worth.

    Reference: Gurnee et al. 2023, section 3.
    """

    k: int
    choice: Choice = "mean_difference"
    l2: float = 1e-2

    @property
    def name(self) -> str:
        """Named in reports."""
        random = " random" if self.choice == "random" else ""
        return f"{self.k}-sparse{random}"

    def fit(self, data: ProbeData, generator: torch.Generator) -> Probe:
        """Choose the coordinates and fit, both on training items.

        Raises:
            ValueRangeError: if there are not two classes, or k is not from 1 to the width.
            UnknownNameError: if the choice is unknown.
        """
        data.require_classes(binary="A k-sparse probe")
        scaling = Scaling.of(data.activations)
        scaled = scaling(data.activations)
        chosen = self.coordinates(scaled, data.labels, generator)
        fitted = softmax_regression(
            scaled[:, chosen], data.labels, n_classes=2, l2=self.l2,
            weights=1 / torch.bincount(data.labels).double()[data.labels],
        )  # fmt: skip
        weight = torch.zeros(scaled.shape[1], 1, dtype=torch.float64)
        weight[chosen] = fitted.head.weight
        return Probe(
            method=self.name,
            classes=data.classes,
            scaling=scaling,
            head=LinearHead(weight=weight, bias=fitted.head.bias),
            trained_on=data.named_groups,
            facts={"k": float(self.k), "l2": self.l2, "gap": fitted.gap},
        )

    def coordinates(
        self,
        scaled: Float[Tensor, "item width"],
        labels: Int[Tensor, " item"],
        generator: torch.Generator,
    ) -> Int[Tensor, " k"]:
        """The chosen coordinates, best first."""
        width = scaled.shape[1]
        if not 1 <= self.k <= width:
            raise ValueRangeError(f"k must be from 1 to the width {width}; got {self.k}. Lower it.")
        if self.choice == "random":
            return torch.randperm(width, generator=generator)[: self.k]
        if self.choice != "mean_difference":
            raise UnknownNameError("Choice", self.choice, ("mean_difference", "random"))
        apart = (scaled[labels == 1].mean(0) - scaled[labels == 0].mean(0)).abs()
        return apart.topk(self.k).indices
