"""Trials: latents whose truth is known, with everything that was measured of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelassay.evidence.auroc import Auroc, auroc
from modelassay.evidence.evidence import Evidence

_STANDING = {"model": 1.0, "activations": 0.0, "undetermined": 0.5, "dead": torch.nan}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One latent of known truth."""

    testbed: str
    seed: int
    arm: str
    latent: int
    cluster: str
    """Trials of one feature, or of one construction, are not independent: they share this."""
    kind: str
    """How the feature is used: "common", "ignored", ..."""
    of_model: bool
    values: dict[str, float]
    """Evidence, or metric, by name; NaN or absent where it was not measured."""
    verdict: str = ""
    """Empty where no verdict rule applies."""


def values_of(evidence: Sequence[Evidence], latent: int) -> dict[str, float]:
    """One latent's estimates by the evidence's name."""
    return {each.name: float(each.value[latent]) for each in evidence if each.scope == "latent"}


def auroc_of(trials: Sequence[Trial], name: str, *, lower_is_better: bool, seed: int) -> Auroc:
    """How well a quantity tells features of the model from features of the activations.

    Raises:
        TooFewTokensError: if all trials are of one class.
    """
    values = torch.tensor([trial.values.get(name, torch.nan) for trial in trials])
    return _auroc(-values if lower_is_better else values, trials, seed)


def auroc_of_verdict(trials: Sequence[Trial], *, seed: int) -> Auroc:
    """The same of the verdict: model above undetermined above activations."""
    return _auroc(torch.tensor([_STANDING[trial.verdict] for trial in trials]), trials, seed)


def _auroc(values: Tensor, trials: Sequence[Trial], seed: int) -> Auroc:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(t.cluster for t in trials))}
    return auroc(
        values,
        torch.tensor([trial.of_model for trial in trials]),
        torch.tensor([numbers[trial.cluster] for trial in trials]),
        torch.Generator().manual_seed(seed),
    )
