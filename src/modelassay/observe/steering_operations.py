"""What steering does to a value: add to it, clamp it, scale it, or take it away."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import UnknownNameError, ValueRangeError

OperationName = Literal["add", "clamp", "scale", "ablate"]
OPERATIONS: tuple[str, ...] = get_args(OperationName)
_UNCHANGED: dict[str, float | None] = {"add": 0.0, "clamp": None, "scale": 1.0, "ablate": None}


@dataclass(frozen=True, slots=True)
class Operation:
    """A change of a value ``v``: ``v + s`` (add), ``s`` (clamp), ``s v`` (scale), 0 (ablate).

    Raises:
        UnknownNameError: if there is no such operation.
        ValueRangeError: if the strength is not finite, or an ablation has one other than 0.
    """

    name: str
    """One of `OPERATIONS`."""
    strength: float = 0.0
    """s; of an ablation always 0."""

    def __post_init__(self) -> None:
        if self.name not in OPERATIONS:
            raise UnknownNameError("Operation", self.name, OPERATIONS)
        finite = abs(self.strength) < float("inf")
        if not finite or (self.name == "ablate" and self.strength != 0):
            raise ValueRangeError(
                "A strength must be finite, and 0 for an ablation; got "
                f"{self.strength} for {self.name!r}. Clamp to another value than 0 instead."
            )

    @property
    def changes_nothing(self) -> bool:
        """Whether every value stays as it is: adding 0, scaling by 1."""
        return self.strength == _UNCHANGED[self.name]

    def at(self, strength: float) -> "Operation":
        """The same operation with another strength."""
        return replace(self, strength=strength)

    def change(self, values: Float[Tensor, "*value"]) -> Float[Tensor, "*value"]:
        """New value less old value."""
        if self.name == "add":
            return values * 0 + self.strength
        if self.name == "scale":
            return (self.strength - 1) * values
        return self.strength - values

    def __str__(self) -> str:
        return self.name if self.name == "ablate" else f"{self.name} {self.strength:g}"
