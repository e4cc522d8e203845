"""What an image is optimised for: a target, and targets made of targets.

Targets add, subtract, multiply with numbers and with each other, and `sum` adds up a list:
``Channel("features.9", 3) + 0.5 * Channel("features.9", 7) - 100 * FacetSimilarity("features.7")``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import UnsupportedModelError

Shapes = Mapping[str, tuple[int, int, int]]
"""Layer -> channels, rows and columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A few images and what a model makes of them.

    Each image is seen in one or more views (random transformations, crops), all views of an image
    behind one another.
    """

    images: Float[Tensor, "image 3 height width"]
    """Before any transformation, in 0 … 1."""
    maps: Mapping[str, Float[Tensor, "view _channel _row _column"]]
    """Layer -> activations."""
    references: Mapping[str, Float[Tensor, "_view _channel _row _column"]]
    """The same of reference images, under the same transformations; empty without references."""

    def reference(self, layer: str) -> Float[Tensor, "view channel row column"]:
        """The reference images' activations.

        Raises:
            UnsupportedModelError: if there are none.
        """
        if layer not in self.references:
            raise UnsupportedModelError(
                "A target that compares with a reference must be rendered with one; got none. "
                "Pass references=, or call `caricature`."
            )
        return self.references[layer]

    def per_image(self, values: Float[Tensor, " view"]) -> Float[Tensor, " image"]:
        """The mean over the views of each image."""
        return values.view(len(self.images), -1).mean(1)


class Target(ABC):
    """Something that an image can have more or less of."""

    @property
    @abstractmethod
    def layers(self) -> frozenset[str]:
        """Paths of the modules that it looks at."""

    @abstractmethod
    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """How much of it each image has; differentiable."""

    @abstractmethod
    def check(self, shapes: Shapes) -> None:
        """Refuse a model in which the target does not exist.

        Raises:
            ValueRangeError: if an index or a position lies outside its layer.
            ShapeError: if a direction has another width than its layer.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and for readers."""

    def __add__(self, other: "Target") -> "Target":
        return Sum((self, other))

    def __radd__(self, other: int) -> "Target":
        # `sum` begins with 0.
        return self if other == 0 else NotImplemented

    def __sub__(self, other: "Target") -> "Target":
        return Sum((self, Scaled(other, -1.0)))

    def __neg__(self) -> "Target":
        return Scaled(self, -1.0)

    def __mul__(self, other: "int | float | Target") -> "Target":
        if isinstance(other, Target):
            return Product(self, other)
        return Scaled(self, float(other))

    def __rmul__(self, other: int | float) -> "Target":
        return Scaled(self, float(other))


@final
@dataclass(frozen=True, slots=True)
class Scaled(Target):
    """A target times a number; with -1, what an image should have little of."""

    target: Target
    factor: float

    @property
    def layers(self) -> frozenset[str]:
        """The target's."""
        return self.target.layers

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The target's, multiplied."""
        return self.factor * self.target.values(seen)

    def check(self, shapes: Shapes) -> None:
        """As the target does."""
        self.target.check(shapes)

    @property
    def name(self) -> str:
        """Short and for readers."""
        return (
            f"-{self.target.name}" if self.factor == -1 else f"{self.factor:g} {self.target.name}"
        )


@final
@dataclass(frozen=True, slots=True)
class Sum(Target):
    """Targets added up."""

    targets: tuple[Target, ...]

    @property
    def layers(self) -> frozenset[str]:
        """All targets' together."""
        return frozenset[str]().union(*(target.layers for target in self.targets))

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The sum."""
        first, *others = (target.values(seen) for target in self.targets)
        return sum(others, start=first)

    def check(self, shapes: Shapes) -> None:
        """As every target does."""
        for target in self.targets:
            target.check(shapes)

    @property
    def name(self) -> str:
        """Short and for readers."""
        return " + ".join(target.name for target in self.targets).replace("+ -", "- ")


@final
@dataclass(frozen=True, slots=True)
class Product(Target):
    """Two targets multiplied: only what has both has much of it."""

    first: Target
    second: Target

    @property
    def layers(self) -> frozenset[str]:
        """Both targets' together."""
        return self.first.layers | self.second.layers

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The product, image by image."""
        return self.first.values(seen) * self.second.values(seen)

    def check(self, shapes: Shapes) -> None:
        """As both targets do."""
        self.first.check(shapes)
        self.second.check(shapes)

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"({self.first.name}) x ({self.second.name})"


def interpolate(first: Target, second: Target, count: int) -> tuple[Target, ...]:
    """`count` targets on the way from one to the other: ``(1 - t) first + t second``.

    The ends are the two targets themselves. Rendered with ``together=Alignment(layer)`` the
    images change smoothly from one to the next.
    """
    weights = [step / max(count - 1, 1) for step in range(count)]
    return tuple((1.0 - t) * first + t * second for t in weights)
