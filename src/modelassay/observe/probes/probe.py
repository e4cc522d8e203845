"""`Probe`: a fitted reader of labels, with its preprocessing inside and a guard around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.scores import Scores, scores_of

_CONSTANT = 1e-7  # of the largest deviation: below it a column is constant up to rounding (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """The affine preprocessing that a probe learnt from its training items: (x - mean) / scale."""

    mean: Float[Tensor, " width"]
    scale: Float[Tensor, " width"]

    @staticmethod
    def of(activations: Float[Tensor, "item width"], *, standardise: bool = True) -> "Scaling":
        """Centre every column and, if asked for, divide it by its standard deviation.

        Constant columns keep their scale.
        """
        values = activations.double()
        mean = values.mean(0)
        if not standardise:
            return Scaling(mean=mean, scale=torch.ones_like(mean))
        deviation = values.std(0, correction=0)
        constant = deviation <= _CONSTANT * deviation.max()
        return Scaling(mean=mean, scale=torch.where(constant, 1.0, deviation))

    def __call__(self, activations: Float[Tensor, "item width"]) -> Float[Tensor, "item width"]:
        """Scaled activations, in float64."""
        if activations.shape[1] != len(self.mean):
            raise ShapeError(
                f"A probe of width {len(self.mean)} must read activations of that width; got "
                f"{activations.shape[1]}. Read the site that it was trained on."
            )
        return (activations.double() - self.mean) / self.scale


@runtime_checkable
class Head(Protocol):
    """From scaled activations to log-probabilities of the classes."""

    def log_probabilities(self, scaled: Float[Tensor, "item width"]) -> Float[Tensor, "item class"]:
        """Log-probabilities, natural."""
        ...

    def covector(self) -> Float[Tensor, " width"] | None:
        """Gradient of the log-odds of class 1 if these are linear, else None."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearHead:
    """Logits ``x W + b``: one column of the log-odds of class 1, or one for each class."""

    weight: Float[Tensor, "width logit"]
    bias: Float[Tensor, " logit"]

    def log_probabilities(self, scaled: Float[Tensor, "item width"]) -> Float[Tensor, "item class"]:
        """Log-softmax, or log-sigmoid of plus and minus the log-odds."""
        logits = scaled @ self.weight + self.bias
        if logits.shape[1] == 1:
            return functional.logsigmoid(torch.cat([-logits, logits], 1))
        return logits.log_softmax(1)

    def covector(self) -> Float[Tensor, " width"] | None:
        """The weight, if there are two classes."""
        return self.weight[:, 0] if self.weight.shape[1] == 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A fitted probe. It scores only items of groups that it was not trained on."""

    method: str
    classes: tuple[str, ...]
    scaling: Scaling
    head: Head
    trained_on: frozenset[str]
    """Names of the training items' groups."""
    facts: Mapping[str, float]
    """What the fit chose and how far it converged: l2, gap, …"""

    def probabilities(
        self, activations: Float[Tensor, "item width"]
    ) -> Float[Tensor, "item class"]:
        """Probability of each class.

        Raises:
            ShapeError: if the width is not that of the training activations.
        """
        return self.head.log_probabilities(self.scaling(activations)).exp()

    def direction(self) -> Float[Tensor, " width"]:
        """Unit vector along which the log-odds of class 1 rise fastest, in raw activations.

        It is a read-out direction. Where columns are correlated it differs from the difference of
        the class means, along which the classes lie.

        Raises:
            ValueRangeError: if the probe is not linear in one activation, or has not two classes.
        """
        covector = self.head.covector()
        if covector is None:
            raise ValueRangeError(
                f"A probe must be linear and have two classes to have a direction; got "
                f"{self.method!r} with {len(self.classes)} classes. Use a logistic or mass-mean "
                "probe of one class against the others."
            )
        raw = covector / self.scaling.scale
        norm = raw.norm()
        return raw / norm if norm > 0 else raw

    def require_unseen(self, data: ProbeData) -> None:
        """Refuse items of groups that the probe was trained on.

        Raises:
            ValueRangeError: if there are some, or if the classes are others.
        """
        seen = self.trained_on & data.named_groups
        if seen:
            raise ValueRangeError(
                f"A probe must be scored on groups that it was not trained on; got "
                f"{', '.join(map(repr, sorted(seen)[:3]))} ({len(seen)} in all). Score it on the "
                "test side of train_test."
            )
        if data.classes != self.classes:
            raise ValueRangeError(
                f"A probe must be scored on its own classes {self.classes}; got {data.classes}. "
                "Label the items alike."
            )

    def score(self, data: ProbeData, *, seed: int = 0) -> Scores:
        """How well the probe does on unseen groups, with intervals by group.

        Raises:
            ValueRangeError: if a group was trained on, or the classes are others.
        """
        self.require_unseen(data)
        return scores_of(
            self.probabilities(data.activations),
            data.labels,
            data.groups,
            derived(seed, "probe scores"),
        )


@runtime_checkable
class ProbeMethod(Protocol):
    """A way to fit a probe: what it may choose on its own it chooses from the training items."""

    @property
    def name(self) -> str:
        """Named in reports."""
        ...

    def fit(self, data: ProbeData, generator: torch.Generator) -> Probe:
        """Fit to training items.

        Raises:
            ValueRangeError: if there is one class only, or the fit did not converge.
        """
        ...
