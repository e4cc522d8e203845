"""Contrast-consistent search: a direction on which a statement and its negation disagree.

Its items are pairs. The activations of the two halves stand side by side in one row, so that
splits, controls and scores treat a pair as they treat any item.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.probe import Probe, Scaling


@dataclass(frozen=True, kw_only=True, slots=True)
class PairHead:
    """``p = (s(x_1) + 1 - s(x_2)) / 2`` with ``s(x) = sigmoid(w · x + b)``."""

    weight: Float[Tensor, " half"]
    bias: Float[Tensor, ""]
    flipped: bool = False
    """Whether the labels say that class 1 is where s is low."""

    def log_probabilities(self, scaled: Float[Tensor, "item width"]) -> Float[Tensor, "item class"]:
        """Log-probabilities of a pair's label."""
        first, second = pair_shares(scaled, self.weight, self.bias)
        likely = (first + 1 - second) / 2
        likely = 1 - likely if self.flipped else likely
        return torch.stack([1 - likely, likely], 1).clamp(min=1e-12).log()

    def covector(self) -> Float[Tensor, " width"] | None:
        """None: the direction reads halves of pairs, not their rows."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ccs:
    """Contrast-consistent search.

    Each half is centred by its own mean, which removes what tells the halves apart as such. Then
    ``(p_1 - (1 - p_2))^2 + min(p_1, p_2)^2`` is minimised by AdamW on all items from several
    starts; the lowest loss is kept. No label is used, except to say which side is class 1: so its
    accuracy on training items is at least one half by construction, and only scores on other
    groups mean anything.

    Reference: Burns et al. 2022, and the authors' code for the constants.
    """

    n_starts: int = 10
    n_epochs: int = 1000
    rate: float = 1e-3
    weight_decay: float = 0.01
    unit_variance: bool = False
    """Also divide every column by its standard deviation."""

    @property
    def name(self) -> str:
        """Named in reports."""
        return "CCS"

    def fit(self, data: ProbeData, generator: torch.Generator) -> Probe:
        """Fit to pairs: activations ``[first half, second half]``.

        Raises:
            ShapeError: if the width is odd.
            ValueRangeError: if there are not two classes.
        """
        data.require_classes(binary="CCS")
        if data.activations.shape[1] % 2:
            raise ShapeError(
                f"CCS must read pairs, of even width; got {data.activations.shape[1]}. Put the "
                "activations of a statement and of its negation side by side."
            )
        scaling = Scaling.of(data.activations, standardise=self.unit_variance)
        scaled = scaling(data.activations)
        tries = [self._search(scaled, generator) for _ in range(self.n_starts)]
        loss, head = min(tries, key=lambda found: found[0])
        right = head.log_probabilities(scaled).argmax(1) == data.labels
        head = replace(head, flipped=bool(right.double().mean() < 0.5))
        return Probe(
            method=self.name,
            classes=data.classes,
            scaling=scaling,
            head=head,
            trained_on=data.named_groups,
            facts={"loss": loss},
        )

    def _search(self, scaled: Tensor, generator: torch.Generator) -> tuple[float, PairHead]:
        width = scaled.shape[1] // 2
        bound = width**-0.5  # as torch.nn.Linear begins
        drawn = (2 * torch.rand(width + 1, generator=generator, dtype=torch.float64) - 1) * bound
        weight, bias = drawn[:-1].clone().requires_grad_(), drawn[-1].clone().requires_grad_()
        optimizer = torch.optim.AdamW([weight, bias], lr=self.rate, weight_decay=self.weight_decay)
        for _ in range(self.n_epochs):
            optimizer.zero_grad()
            contrast_loss(scaled, weight, bias).backward()
            optimizer.step()
        weight, bias = weight.detach(), bias.detach()
        loss = float(contrast_loss(scaled, weight, bias))
        return loss, PairHead(weight=weight, bias=bias)


def contrast_loss(
    scaled: Float[Tensor, "item width"], weight: Float[Tensor, " half"], bias: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean of ``(p_1 - (1 - p_2))^2 + min(p_1, p_2)^2``: consistency and confidence."""
    first, second = pair_shares(scaled, weight, bias)
    consistency = (first - (1 - second)).square()
    confidence = torch.minimum(first, second).square()
    return (consistency + confidence).mean()


def pair_shares(
    scaled: Float[Tensor, "item width"], weight: Float[Tensor, " half"], bias: Float[Tensor, ""]
) -> tuple[Float[Tensor, " item"], Float[Tensor, " item"]]:
    """``sigmoid(w · x + b)`` of both halves."""
    first, second = scaled.chunk(2, dim=1)
    return (first @ weight + bias).sigmoid(), (second @ weight + bias).sigmoid()
