"""What pages of patching and steering are made of, beside the parts that every page may have."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modelassay.observe.steering_where import ShownTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectMap:
    """Shares of an effect: parts of a model in rows, positions in columns."""

    title: str
    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shares: Float[Tensor, "row column"]
    low: Float[Tensor, "row column"]
    """Ends of the 95 % intervals; NaN where there is none."""
    high: Float[Tensor, "row column"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One quantity over strengths, before its null."""

    title: str
    value: Float[Tensor, " strength"]
    low: Float[Tensor, " strength"]
    high: Float[Tensor, " strength"]
    random: Float[Tensor, "draw strength"]
    """The same of random directions."""
    baseline: float
    """Without steering."""
    logarithmic: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StrengthCurves:
    """Several quantities over the same strengths, side by side."""

    title: str
    caption: str
    strengths: tuple[float, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptStrip:
    """Prompts with the tokens marked that were steered and read."""

    title: str
    caption: str
    prompts: tuple[ShownTokens, ...]


InterventionPart = EffectMap | StrengthCurves | PromptStrip
