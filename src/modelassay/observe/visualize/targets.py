"""Units of a vision model as targets: neuron, channel, layer, direction, latent, likeness.

A position is a row and a column; in a layer of tokens the row is the token and the column 0.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.observe.visualize.algebra import Seen, Shapes, Target

_LEAST_COSINE = 0.1  # lucid: below this the power of the cosine no longer matters


@final
@dataclass(frozen=True, slots=True)
class Channel(Target):
    """One channel's mean over all positions; in a layer of logits, a class."""

    layer: str
    index: int

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """Mean over positions (and views) of ``a[channel]``."""
        return seen.per_image(seen.maps[self.layer][:, self.index].mean((1, 2)))

    def check(self, shapes: Shapes) -> None:
        """Refuse a channel that the layer does not have."""
        _check_index(self.layer, self.index, shapes)

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"{self.layer} channel {self.index}"


@final
@dataclass(frozen=True, slots=True)
class Neuron(Target):
    """One channel at one position; in the middle, rows // 2 and columns // 2, if none is given."""

    layer: str
    index: int
    position: tuple[int, int] | None = None

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """``a[channel, row, column]``, averaged over views."""
        rows, columns = seen.maps[self.layer].shape[2:]
        row, column = self.position or (rows // 2, columns // 2)
        # Random scales change the size of the map: a position near the edge follows it.
        row, column = min(row, rows - 1), min(column, columns - 1)
        return seen.per_image(seen.maps[self.layer][:, self.index, row, column])

    def check(self, shapes: Shapes) -> None:
        """Refuse a channel or a position that the layer does not have."""
        _check_index(self.layer, self.index, shapes)
        _, rows, columns = shapes[self.layer]
        row, column = self.position or (0, 0)
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueRangeError(
                f"A position in {self.layer!r} must lie within {rows} rows and {columns} columns; "
                f"got {(row, column)}. Choose another, or leave it out for the middle."
            )

    @property
    def name(self) -> str:
        """Short and for readers."""
        where = f" at {self.position}" if self.position else ""
        return f"{self.layer} neuron {self.index}{where}"


@final
@dataclass(frozen=True, slots=True)
class Layer(Target):
    """A whole layer: the mean square of its activations, as in DeepDream."""

    layer: str

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """``mean(a²)`` over channels, positions and views."""
        return seen.per_image(seen.maps[self.layer].square().flatten(1).mean(1))

    def check(self, shapes: Shapes) -> None:
        """Every layer will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"{self.layer} all channels"


@final
@dataclass(frozen=True, eq=False, slots=True)
class Direction(Target):
    """A direction in a layer's space of channels.

    The mean over positions of ``(x · v) max(0.1, cos(x, v))^p``: with p = 0 the projection alone; a
    higher power (2 is common, 4 in lucid's activation atlas) asks that little else is active.
    """

    layer: str
    vector: Float[Tensor, " channel"]
    cosine_power: float = 0.0
    label: str = "direction"

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The projection, weighted with its cosine."""
        found = seen.maps[self.layer]
        vector = self.vector.to(found)[:, None, None].expand_as(found)
        return seen.per_image(_likeness(found, vector, self.cosine_power).mean((1, 2)))

    def check(self, shapes: Shapes) -> None:
        """Refuse a vector of another width, or of length 0."""
        channels = shapes[self.layer][0]
        if self.vector.shape != (channels,):
            raise ShapeError(
                f"A direction in {self.layer!r} must have {channels} entries; got "
                f"{list(self.vector.shape)}. Take it from the same layer."
            )
        if not bool(self.vector.isfinite().all()) or not bool(self.vector.any()):
            raise ValueRangeError(
                "A direction must be finite and not zero; got "
                f"length {float(self.vector.norm()):g}. Choose another."
            )

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"{self.layer} {self.label}"


def latent(
    layer: str, decomposition: Decomposition, index: int, cosine_power: float = 0.0
) -> Direction:
    """A latent of a dictionary over a layer's positions, as the target that reads it.

    The latent's covector, the linear part of what its encoder computes: unlike the latent's value
    after the sparsifier it has a gradient where the latent is silent.

    Raises:
        ValueRangeError: if the decomposition has no such latent.
    """
    if not 0 <= index < decomposition.width:
        raise ValueRangeError(
            f"A latent of {decomposition.name} must be in 0 … {decomposition.width - 1}; got "
            f"{index}. Choose another."
        )
    vector = decomposition.covectors[index].detach().clone()
    return Direction(layer, vector, cosine_power, label=f"latent {index}")


@final
@dataclass(frozen=True, slots=True)
class Likeness(Target):
    """What a reference image has at a layer, and more of it: a caricature.

    ``(x · r) max(0.1, cos(x, r))^p`` at every position, where r is the reference's activation there
    under the same transformation, divided by the mean of ``|r|²``: the reference itself scores 1.
    """

    layer: str
    cosine_power: float = 1.0

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The likeness, averaged over positions."""
        reference = seen.reference(self.layer)
        likeness = _likeness(seen.maps[self.layer], reference, self.cosine_power).mean((1, 2))
        norm = reference.square().sum(1).mean((1, 2)).clamp_min(torch.finfo(reference.dtype).tiny)
        return seen.per_image(likeness / norm)

    def check(self, shapes: Shapes) -> None:
        """Every layer will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"{self.layer} likeness"


def _likeness(
    x: Float[Tensor, "view channel row column"],
    v: Float[Tensor, "view channel row column"],
    power: float,
) -> Float[Tensor, "view row column"]:
    product = (x * v).sum(1)
    if power == 0:
        return product
    cosine = torch.cosine_similarity(x, v, dim=1)
    return product * cosine.clamp_min(_LEAST_COSINE) ** power


def _check_index(layer: str, index: int, shapes: Shapes) -> None:
    channels = shapes[layer][0]
    if not 0 <= index < channels:
        raise ValueRangeError(
            f"A channel of {layer!r} must be in 0 … {channels - 1}; got {index}. Choose another."
        )
