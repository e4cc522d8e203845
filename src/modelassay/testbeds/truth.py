"""A truth: features that a construction put there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError

Scalars = Callable[[Tensor], Float[Tensor, "input feature"]]
"""From a batch of a model's inputs to the value of every feature on each of them."""

_SILENT = 1e-6  # of a feature's largest value: below it the feature is off (ours)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Scalar features of a model's inputs, known by construction."""

    names: tuple[str, ...]
    scalars: Scalars
    """Their values on given inputs. Defined on every input, on the data or off it."""
    covectors: Float[Tensor, "feature d"] | None = None
    """What each feature is read with at the site (model), or where it points (activations)."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueRangeError("A truth must have at least one feature; got none. Name some.")
        if self.covectors is not None and len(self.covectors) != len(self.names):
            raise ShapeError(
                f"covectors must have one row per feature, {len(self.names)}; got "
                f"{list(self.covectors.shape)}. Pass [feature, d]."
            )

    def __len__(self) -> int:
        return len(self.names)

    def values(self, inputs: Tensor) -> Float[Tensor, "input feature"]:
        """The checked scalars.

        Raises:
            ShapeError: if there is not one column per feature.
            NonFiniteError: if one is NaN or infinite.
        """
        values = self.scalars(inputs)
        if values.shape != (len(inputs), len(self)):
            raise ShapeError(
                f"scalars must be [{len(inputs)}, {len(self)}] (input, feature); got "
                f"{list(values.shape)}. Return one column per name."
            )
        if not bool(values.isfinite().all()):
            raise NonFiniteError(
                "A truth's scalars must be finite; got NaN or Inf in "
                f"{self.names[int((~values.isfinite()).any(0).nonzero()[0, 0])]!r}. "
                "Define every feature on every input."
            )
        return values


def is_active(values: Float[Tensor, "input feature"]) -> Bool[Tensor, "input feature"]:
    """On which inputs each feature is on: its value is not zero."""
    return values.abs() > _SILENT * values.abs().amax(0, keepdim=True).clamp(min=1e-30)


def one_hot_scalars(classes: Callable[[Tensor], Tensor], count: int) -> Scalars:
    """Scalars that are 1 for the class of an input and 0 for the others."""

    def scalars(inputs: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(classes(inputs), count).float()

    return scalars
