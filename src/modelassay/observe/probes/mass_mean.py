"""Mass-mean probes: the difference of the class means, plain or tilted by the covariance."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.probe import LinearHead, Probe, Scaling

_TOLERANCE = 1e-3
"""Singular values below this share of the largest are left out of the pseudo-inverse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MassMean:
    """``p = sigmoid(theta · x)`` with ``theta = mu_1 - mu_0``, activations centred.

    Tilted, ``p = sigmoid(x^T S^+ theta)`` with S the covariance within the classes: the optimum of
    two Gaussian classes of one covariance, for test items from the training distribution. Plain,
    it forgets how activations correlate, and is meant for test items from another distribution.

    Plain probabilities are not calibrated: theta has the scale of the activations, so read its
    AUROC and its accuracy, not its log-loss.

    Reference: Marks & Tegmark 2023, section 5.1.
    """

    tilted: bool = False

    @property
    def name(self) -> str:
        """Named in reports."""
        return "mass-mean, tilted" if self.tilted else "mass-mean"

    def fit(self, data: ProbeData, generator: torch.Generator) -> Probe:
        """Fit to training items; nothing is random.

        Raises:
            ValueRangeError: if there are not two classes.
        """
        del generator
        data.require_classes(binary="A mass-mean probe")
        scaling = _balanced_centre(data)
        centred = scaling(data.activations)
        theta = mean_difference(centred, data.labels)
        if self.tilted:
            covariance = within_class_covariance(centred, data.labels)
            theta = torch.linalg.pinv(covariance, rtol=_TOLERANCE, hermitian=True) @ theta
        head = LinearHead(weight=theta[:, None], bias=torch.zeros(1, dtype=torch.float64))
        return Probe(
            method=self.name,
            classes=data.classes,
            scaling=scaling,
            head=head,
            trained_on=data.named_groups,
            facts={},
        )


def mean_difference(
    activations: Float[Tensor, "item width"], labels: Int[Tensor, " item"]
) -> Float[Tensor, " width"]:
    """``mu_1 - mu_0``, in float64."""
    values = activations.double()
    return values[labels == 1].mean(0) - values[labels == 0].mean(0)


def within_class_covariance(
    activations: Float[Tensor, "item width"], labels: Int[Tensor, " item"]
) -> Float[Tensor, "width width"]:
    """Pooled covariance around the class means, divided by the number of items."""
    residual = activations.double().clone()
    for label in labels.unique().tolist():
        members = labels == label
        residual[members] -= residual[members].mean(0)
    return residual.T @ residual / len(residual)


def _balanced_centre(data: ProbeData) -> Scaling:
    """Centre halfway between the class means, so that unequal classes need no bias."""
    values = data.activations.double()
    middle = (values[data.labels == 1].mean(0) + values[data.labels == 0].mean(0)) / 2
    return Scaling(mean=middle, scale=torch.ones_like(middle))
