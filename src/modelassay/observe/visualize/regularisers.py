"""Terms on the image itself; subtract them to get plainer images.

The parametrisation and the transformations regularise already. These stand in for what was done
before them (lucid's baseline: L1 0.05 around grey, total variation 0.25), and for closeness to a
given image.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.observe.visualize.algebra import Seen, Shapes, Target


@final
@dataclass(frozen=True, slots=True)
class Contrast(Target):
    """The sum of distances from grey: ``sum |image - 0.5|``."""

    @property
    def layers(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The L1 norm around grey."""
        return (seen.images - 0.5).abs().flatten(1).sum(1)

    def check(self, shapes: Shapes) -> None:
        """Every model will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return "contrast"


@final
@dataclass(frozen=True, slots=True)
class TotalVariation(Target):
    """The sum of distances between neighbouring pixels, down and across."""

    @property
    def layers(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """``sum |image[y+1, x] - image[y, x]| + |image[y, x+1] - image[y, x]|``."""
        down = seen.images.diff(dim=2).abs().flatten(1).sum(1)
        across = seen.images.diff(dim=3).abs().flatten(1).sum(1)
        return down + across

    def check(self, shapes: Shapes) -> None:
        """Every model will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return "total variation"


@final
@dataclass(frozen=True, eq=False, slots=True)
class Distance(Target):
    """The mean square difference from a given image, one for each of a target's images."""

    image: Float[Tensor, "3 height width"]

    @property
    def layers(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """``mean (image - given)²``."""
        if seen.images.shape[1:] != self.image.shape:
            raise ShapeError(
                f"The given image must have the rendered one's shape {list(seen.images.shape[1:])};"
                f" got {list(self.image.shape)}. Resize it."
            )
        return (seen.images - self.image.to(seen.images)).square().flatten(1).mean(1)

    def check(self, shapes: Shapes) -> None:
        """Every model will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return "distance from the given image"
