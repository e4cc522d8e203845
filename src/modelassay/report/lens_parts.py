"""What a lens's page is made of, beside the parts that every page may have."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.lenses.reading import LensReading

LensMeasure = Literal["probability", "target", "rank", "entropy", "kl", "cross_entropy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureMeaning:
    """A measure that colours the cells of a lens's map."""

    key: LensMeasure
    title: str
    unit: str
    explains: str
    good: bool
    """Whether much of it means that the lens is sure, or right."""


MEANINGS: tuple[MeasureMeaning, ...] = (
    MeasureMeaning(
        key="probability",
        title="Probability of the top token",
        unit="",
        explains="How sure the lens is of the token shown in the cell.",
        good=True,
    ),
    MeasureMeaning(
        key="target",
        title="Probability of the next token",
        unit="",
        explains="What the lens gives to the token that did come next.",
        good=True,
    ),
    MeasureMeaning(
        key="rank",
        title="Rank of the next token",
        unit="",
        explains="Tokens that the lens holds likelier than the one that came next; 0 is best.",
        good=False,
    ),
    MeasureMeaning(
        key="entropy",
        title="Entropy",
        unit="nats",
        explains="How spread the prediction is: 0 is certain.",
        good=False,
    ),
    MeasureMeaning(
        key="kl",
        title="KL from the final prediction",
        unit="nats",
        explains="How far the lens is from what the model says at its end: 0 at the last layer.",
        good=False,
    ),
    MeasureMeaning(
        key="cross_entropy",
        title="Cross-entropy of the next token",
        unit="nats",
        explains="Surprise at the token that did come next.",
        good=False,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LensMap:
    """Tokens across, layers upwards: what each layer predicts at each token."""

    title: str
    caption: str
    readings: tuple[LensReading, ...]
    """Of one text through several lenses."""


def values_of(reading: LensReading, measure: LensMeasure) -> Float[Tensor, "depth token"]:
    """A measure of a reading; NaN at the last token where there is no next one."""
    if measure == "probability":
        return reading.top_probabilities[:, :, 0]
    if measure == "target":
        return (-reading.cross_entropy).exp()
    if measure == "rank":
        return torch.where(reading.rank < 0, torch.nan, reading.rank.float())
    return getattr(reading, measure)


def shades_of(
    readings: tuple[LensReading, ...], measure: LensMeasure
) -> tuple[tuple[Float[Tensor, "depth token"], ...], float]:
    """How strongly each cell is coloured, from 0 to 1, and the value at full strength.

    All lenses share one scale. Probabilities are shown as they are; ranks on a logarithmic scale;
    the rest up to the 99th percentile of what stands after the first block, because one surprising
    token, or the embedding, which only repeats its input, would pale the others.
    """
    tables = [values_of(reading, measure) for reading in readings]
    if measure in ("probability", "target"):
        return tuple(table.nan_to_num(0.0) for table in tables), 1.0
    if measure == "rank":
        known = torch.cat([table[~table.isnan()] for table in tables])
        top = float(known.max()) if len(known) else 1.0
        scaled = [table.log1p() / max(torch.tensor(top).log1p().item(), 1e-9) for table in tables]
    else:
        inner = torch.cat([table[1:].flatten() for table in tables])
        inner = inner[~inner.isnan()]
        top = float(inner.quantile(0.99)) if len(inner) else 1.0
        scaled = [table / max(top, 1e-9) for table in tables]
    return tuple(each.nan_to_num(0.0).clamp(0, 1) for each in scaled), top
