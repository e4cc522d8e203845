"""A drawing in the units of its data; what it looks like is decided where it is shown."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """Points, a line through points, or arrows from the origin."""

    kind: Literal["points", "line", "arrows"]
    title: str
    """What the marks are; listed in the legend."""
    role: Literal["data", "activations", "model", "found", "null"]
    """Names their colour: the same thing has the same colour in every picture."""
    x: Float[Tensor, " mark"]
    y: Float[Tensor, " mark"]

    def __post_init__(self) -> None:
        if self.x.shape != self.y.shape or self.x.ndim != 1:
            raise ShapeError(
                "x and y of marks must be two lists of one length; got "
                f"{list(self.x.shape)} and {list(self.y.shape)}. Pass one y for every x."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Marks on two axes."""

    title: str
    caption: str
    """What to see in it, one or two sentences."""
    x_title: str
    y_title: str
    marks: tuple[Marks, ...]
    equal: bool = False
    """Whether a unit is as long on both axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table of values shown as shades: rows from the top, columns from the left."""

    title: str
    caption: str
    values: Float[Tensor, "row column"]
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.row_names), len(self.column_names)):
            raise ShapeError(
                f"values must be [{len(self.row_names)}, {len(self.column_names)}] (row, column); "
                f"got {list(self.values.shape)}. Name every row and column."
            )


Drawing = Picture | Grid
