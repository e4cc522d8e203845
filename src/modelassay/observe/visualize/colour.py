"""Axes along which the colours of natural images vary independently.

An image is optimised in these coordinates, because a step that is the same in all of them changes
an image as natural images differ: mostly in brightness, little in hue.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import TooFewTokensError
from modelassay.observe.visualize.image_input import check_images

Row = tuple[float, float, float]


@final
@dataclass(frozen=True, slots=True)
class ColourAxes:
    """A square root of the covariance of colours: rows red, green, blue; columns the axes."""

    rows: tuple[Row, Row, Row]

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """The axes, divided by the longest one's length: RGB = matrix @ coordinates."""
        axes = torch.tensor(self.rows)
        return axes / axes.norm(dim=0).max()

    def correlated(self, image: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """From independent coordinates to red, green and blue, before the squashing."""
        return torch.einsum("rc,...chw->...rhw", self.matrix.to(image), image)

    def independent(self, image: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """The inverse of `correlated`."""
        inverse = torch.linalg.inv(self.matrix.double()).to(image)
        return torch.einsum("cr,...rhw->...chw", inverse, image)


LUCID_COLOURS = ColourAxes(((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03)))
"""Of ImageNet, as lucid has them (`param/color.py`)."""

RGB = ColourAxes(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
"""No decorrelation."""


def colour_axes(images: Float[Tensor, "n channels h w"]) -> ColourAxes:
    """The axes of any set of images: eigenvectors of the covariance of their pixels' colours.

    ``C = E diag(sqrt(eigenvalues))``, the longest axis first, each pointing to where its largest
    entry is positive; ``C Cᵀ`` is the covariance.

    Args:
        images: in 0 … 1.

    Raises:
        ShapeError: if they are not RGB.
        TooFewTokensError: if their colours do not vary in three dimensions (grey images).
    """
    check_images(images)
    pixels = images.double().movedim(1, 0).flatten(1)
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(pixels))
    if float(eigenvalues[0]) <= 1e-9 * float(eigenvalues[-1]) or float(eigenvalues[-1]) == 0:
        raise TooFewTokensError(
            "Colours must vary in three dimensions to have axes; got images whose covariance has "
            f"eigenvalues {[float(f'{e:.2g}') for e in eigenvalues]}. Use images with more colours."
        )
    axes = (vectors * eigenvalues.sqrt()).flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    rows = (axes * largest.sign()).tolist()
    return ColourAxes((_row(rows[0]), _row(rows[1]), _row(rows[2])))


def _row(values: list[float]) -> Row:
    red, green, blue = values
    return red, green, blue
