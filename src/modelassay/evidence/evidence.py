"""One measured quantity, with everything needed to judge it."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """A quantity per latent, or one per decomposition, beside its null and its interval.

    NaN marks what was not measured: there was too little data for a claim.
    """

    name: str
    """Identifier, as in `audit.json`."""
    title: str
    """Plain words for readers."""
    scope: Literal["latent", "decomposition"]
    value: Float[Tensor, " latent"]
    """The estimate; a single entry for scope "decomposition"."""
    low: Float[Tensor, " latent"]
    """Lower end of the 95 % interval."""
    high: Float[Tensor, " latent"]
    """Upper end of the 95 % interval."""
    null: Float[Tensor, " latent"]
    """Typical value (median) under the null, in the same unit."""
    null_description: str
    """What the null is, in words."""
    p_value: Float[Tensor, " latent"] | None = None
    q_value: Float[Tensor, " latent"] | None = None
    """Benjamini-Hochberg over the measured latents."""
    n: Int[Tensor, " latent"]
    """Sample size; the definition says of what."""
    unit: str
    better: Better
    """Which way is better for a decomposition that finds the model's own features."""
    definition: str
    """The formula in one paragraph."""
    references: tuple[str, ...] = ()
    """Keys of `modelassay.core.references`."""

    def __post_init__(self) -> None:
        if self.scope == "decomposition" and len(self.value) != 1:
            raise ShapeError(
                f"{self.name} of a decomposition must have a single value; got {len(self.value)}. "
                "Use scope='latent' for a value per latent."
            )

    def at(self, latent: int = 0) -> dict[str, float]:
        """One latent's numbers: value, low, high, null, n, and p_value, q_value where measured."""
        numbers: dict[str, float] = {
            "value": float(self.value[latent]),
            "low": float(self.low[latent]),
            "high": float(self.high[latent]),
            "null": float(self.null[latent]),
            "n": int(self.n[latent]),
        }
        for name, values in (("p_value", self.p_value), ("q_value", self.q_value)):
            if values is not None:
                numbers[name] = float(values[latent])
        return numbers


def single(value: float) -> Float[Tensor, "1"]:
    """A decomposition-level number in the form that `Evidence` holds."""
    return torch.tensor([value], dtype=torch.float32)
