"""Which features are planted: their kind, how often they fire, how strong they are and are read."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from modelassay.core.errors import UnknownNameError, ValueRangeError

KINDS = ("common", "combination", "rare")
"""A common feature is read on its own, and so is a rare one; a combination is a pair of features,
of which the reader wants both."""
DEFAULT_COUNTS: Mapping[str, int] = {"common": 24, "combination": 8, "rare": 8}

# Shares of tokens (ours). A combination's rate is fixed, since partners must meet.
_RATES = {"common": (0.01, 0.03), "combination": (0.02, 0.02), "rare": (0.001, 0.002)}
_AMPLITUDES = (0.15, 0.25)  # of the residual stream's mean norm (ours)
_GAINS = (1.5, 4.0)  # norm of what the reader writes over norm of what it reads (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFeature:
    """One feature before it is planted."""

    kind: str
    """One of `KINDS`."""
    rate: float
    """Share of tokens on which it fires."""
    amplitude: float
    """Its mean norm while it fires, over the mean norm of the residual stream."""
    gain: float
    """Mean norm of what its reader writes, over its own mean norm. Above 1, so that an edit along
    the feature moves the stream behind the reader by more than an equal edit of any other direction
    that merely passes through: this is what makes it "read more than a direction of its size"."""
    reader: int
    """Block in which it is read."""
    partner: int
    """Of a combination, the number of the other feature; else -1."""


def draw_plan(
    counts: Mapping[str, int], readers: tuple[int, ...], generator: torch.Generator
) -> tuple[PlannedFeature, ...]:
    """Features of each kind, one kind after the other; partners stand side by side.

    Rates, amplitudes and gains are log-uniform over what the kind allows.

    Args:
        counts: number of features of each kind; a multiple of 2, for combinations of 4: half of
            each kind is read in either arm.
        readers: blocks that may read.
        generator: for all draws.

    Raises:
        UnknownNameError: if a kind is unknown.
        ValueRangeError: if a kind cannot be halved, or there is no feature.
    """
    for kind, count in counts.items():
        if kind not in KINDS:
            raise UnknownNameError("Kind of planted feature", kind, KINDS)
        unit = 4 if kind == "combination" else 2
        if count < 0 or count % unit:
            raise ValueRangeError(
                f"The number of {kind} features must be a multiple of {unit}, since half of them "
                f"are read in either arm; got {count}. Take {count // unit * unit + unit}."
            )
    if sum(counts.values()) == 0:
        raise ValueRangeError("There must be at least one planted feature; got none. Plan some.")

    def draw(ends: tuple[float, float]) -> float:
        low, high = ends
        return low * (high / low) ** float(torch.rand((), generator=generator))

    features: list[PlannedFeature] = []
    for kind in KINDS:
        for number in range(counts.get(kind, 0)):
            paired = kind == "combination"
            second = paired and number % 2 == 1
            block = int(torch.randint(len(readers), (), generator=generator))
            here = len(features)
            gain = draw(_GAINS)
            features.append(
                PlannedFeature(
                    kind=kind,
                    rate=draw(_RATES[kind]),
                    amplitude=draw(_AMPLITUDES),
                    gain=features[-1].gain if second else gain,
                    reader=features[-1].reader if second else readers[block],
                    partner=(here - 1 if second else here + 1) if paired else -1,
                )
            )
    return tuple(features)
