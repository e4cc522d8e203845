"""Synthetic images with one known property: gratings, edges, bars, curves, textures, colours, dots.

Coordinates are pixels from the image's middle, x rightwards and y upwards. Angles are in radians,
counter-clockwise from rightwards, and name the direction across a contour: that in which luminance,
texture or colour changes, or in which a curve's centre lies. Images are exact numbers in 0 … 1, not
rounded to bytes; contours are as soft as one pixel.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.observe.stimulus_shapes import (
    across,
    coordinates,
    from_arc,
    side,
    stroke,
    texture,
)

_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709
_LEAST = 8  # pixels; in fewer, no contour has two sides (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class StimulusAxis:
    """One property that is varied."""

    name: str
    values: tuple[float, ...]
    period: float | None = None
    """Values that lie this far apart are the same; None for a property without one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stimuli:
    """All combinations of some properties' values; the last axis runs fastest."""

    name: str
    images: Float[Tensor, "stimulus 3 h w"]
    axes: tuple[StimulusAxis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Values of each axis."""
        return tuple(len(axis.values) for axis in self.axes)


def angles(count: int, period: float = 2 * math.pi) -> tuple[float, ...]:
    """Evenly spaced from 0, the period itself left out."""
    return tuple(index * period / count for index in range(count))


def gratings(
    size: int,
    *,
    orientations: int = 12,
    frequencies: Sequence[float] = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8),
    phases: int = 4,
    contrast: float = 1.0,
) -> Stimuli:
    """``1/2 + contrast/2 cos(2π f (x cos θ + y sin θ) - φ)``, f in cycles a pixel.

    Raises:
        ValueRangeError: if a frequency is not in 0 … 1/2 or the contrast not in 0 … 1.
    """
    for frequency in frequencies:
        _check(0 < frequency <= 0.5, "frequency", "above 0 and at most 1/2", frequency)

    def draw(angle: float, frequency: float, phase: float) -> Tensor:
        return torch.cos(2 * math.pi * frequency * across(size, angle) - phase)

    axes = (
        StimulusAxis(name="orientation", values=angles(orientations, math.pi), period=math.pi),
        StimulusAxis(name="frequency", values=tuple(frequencies)),
        StimulusAxis(name="phase", values=angles(phases), period=2 * math.pi),
    )
    return _drawn("gratings", size, axes, draw, contrast)


def edges(
    size: int,
    *,
    directions: int = 12,
    offsets: Sequence[float] = (-0.5, 0.0, 0.5, 1.0),
    contrast: float = 1.0,
) -> Stimuli:
    """A straight edge, bright on the side that the direction points to; offsets in pixels."""

    def draw(angle: float, offset: float) -> Tensor:
        return side(across(size, angle) - offset)

    axes = (_turn(directions), StimulusAxis(name="offset", values=tuple(offsets)))
    return _drawn("edges", size, axes, draw, contrast)


def bars(
    size: int,
    *,
    orientations: int = 12,
    thickness: float = 3.0,
    offsets: Sequence[float] = (-0.5, 0.0, 0.5, 1.0),
    contrast: float = 1.0,
) -> Stimuli:
    """A long bar, bright (polarity 1) or dark (-1) on grey."""

    def draw(angle: float, polarity: float, offset: float) -> Tensor:
        return polarity * stroke((across(size, angle) - offset).abs(), thickness)

    axes = (
        StimulusAxis(name="orientation", values=angles(orientations, math.pi), period=math.pi),
        StimulusAxis(name="polarity", values=(1.0, -1.0)),
        StimulusAxis(name="offset", values=tuple(offsets)),
    )
    return _drawn("bars", size, axes, draw, contrast)


def curves(
    size: int,
    *,
    directions: int = 12,
    radii: Sequence[float] = (6.0, 12.0, 24.0, math.inf),
    thickness: float = 3.0,
    length: float | None = None,
    offsets: Sequence[float] = (0.0, 0.5),
    contrast: float = 1.0,
) -> Stimuli:
    """An arc through the middle whose centre lies in the direction; a straight one at radius ∞.

    All arcs are equally long, but none longer than half its circle: a bent one has no more contrast
    than a straight one. Kinds:
    a bright line (0), a dark one (1), a boundary bright inside (2) or outside (3).

    Args:
        size: side of the images.
        directions: number of them.
        radii: in pixels.
        thickness: of the lines.
        length: of the arc along its middle; a third of the image by default. What is drawn fades
            beyond it.
        offsets: shifts towards the centre, in pixels.
        contrast: of the drawing against grey.

    Raises:
        ValueRangeError: if a radius or the thickness is not above 0.
    """
    for radius in radii:
        _check(radius > 0, "radius", "above 0", radius)
    _check(thickness > 0, "thickness", "above 0", thickness)
    longest = (length or size / 3) / 2

    def draw(angle: float, radius: float, kind: float, offset: float) -> Tensor:
        away, along = from_arc(size, angle, radius, offset)
        half = min(longest, math.pi * radius / 2)
        # Fades over 4 pixels: a sharp end is itself a contour.
        present = ((half - along) / 4 + 0.5).clamp(0, 1)
        if kind < 2:
            return (1 - 2 * kind) * stroke(away.abs(), thickness) * present
        nearby = ((half - away.abs()) / 4 + 0.5).clamp(0, 1)
        return (5 - 2 * kind) * side(away) * present * nearby

    axes = (
        _turn(directions),
        StimulusAxis(name="radius", values=tuple(radii)),
        StimulusAxis(name="kind", values=(0.0, 1.0, 2.0, 3.0)),
        StimulusAxis(name="offset", values=tuple(offsets)),
    )
    return _drawn("curves", size, axes, draw, contrast)


def high_low_boundaries(
    size: int,
    generator: torch.Generator,
    *,
    directions: int = 12,
    high: float = 0.25,
    low: float = 0.0625,
    samples: int = 4,
    deviation: float = 0.2,
) -> Stimuli:
    """Two textures of equal contrast, the finer one on the side that the direction points to.

    Textures are Gaussian noise of one band of frequencies, drawn anew for each sample. Side 0 has
    the boundary, sides 1 and -1 are the finer and the coarser texture of the same draws alone:
    what a unit must not respond to in order to be a detector of the boundary.

    Raises:
        ValueRangeError: if not 0 < low < high <= 1/2.
    """
    _check(0 < low < high <= 0.5, "low and high", "ordered in 0 … 1/2", low)
    fine = torch.stack([texture(size, high, generator) for _ in range(samples)])
    coarse = torch.stack([texture(size, low, generator) for _ in range(samples)])

    def draw(angle: float, which: float, sample: float) -> Tensor:
        share = torch.sigmoid(across(size, angle)) if which == 0 else torch.tensor((1 + which) / 2)
        # In quadrature, so that the contrast is the same everywhere.
        mixed = share.sqrt() * fine[int(sample)] + (1 - share).sqrt() * coarse[int(sample)]
        return (2 * deviation * mixed).clamp(-1, 1)

    axes = (
        _turn(directions),
        StimulusAxis(name="side", values=(0.0, 1.0, -1.0)),
        StimulusAxis(name="sample", values=tuple(float(index) for index in range(samples))),
    )
    return _drawn("high-low frequency boundaries", size, axes, draw, 1.0)


def colour_contrasts(
    size: int, *, hues: int = 12, directions: int = 8, chroma: float = 0.2
) -> Stimuli:
    """A boundary between a hue, on the side of the direction, and its opposite, at equal luma.

    Hue 0 is the red-green axis towards red; a quarter turn on is blue. Chroma is the distance
    from grey in RGB.

    Raises:
        ValueRangeError: if a colour would leave 0 … 1.
    """
    _check(0 < chroma <= 0.5, "chroma", "above 0 and at most 1/2", chroma)
    first, second = equal_luma_axes()

    def draw(hue: float, angle: float) -> Tensor:
        colour = math.cos(hue) * first + math.sin(hue) * second
        return 2 * chroma * colour[:, None, None] * side(across(size, angle))

    axes = (
        StimulusAxis(name="hue", values=angles(hues), period=2 * math.pi),
        _turn(directions),
    )
    return _drawn("colour contrasts", size, axes, draw, 1.0)


def dots(
    size: int,
    *,
    radii: Sequence[float] = (1.5, 2.5, 4.0, 6.0, 10.0, 16.0),
    offsets: Sequence[float] = (-0.5, 0.0, 0.5, 1.0),
    contrast: float = 1.0,
) -> Stimuli:
    """A disc in the middle, bright (polarity 1) or dark (-1) on grey."""

    def draw(radius: float, polarity: float, offset: float) -> Tensor:
        x, y = coordinates(size)
        return polarity * (radius - torch.hypot(x - offset, y) + 0.5).clamp(0, 1)

    axes = (
        StimulusAxis(name="radius", values=tuple(radii)),
        StimulusAxis(name="polarity", values=(1.0, -1.0)),
        StimulusAxis(name="offset", values=tuple(offsets)),
    )
    return _drawn("dots", size, axes, draw, contrast)


def uniform(size: int) -> Float[Tensor, "1 3 size size"]:
    """The grey that all stimuli are drawn on."""
    return torch.full((1, 3, size, size), 0.5)


def equal_luma_axes() -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Two unit vectors of RGB at right angles to each other and to Rec. 709 luma."""
    luma = torch.tensor(_LUMA)
    blue = torch.tensor([0.0, 0.0, 1.0])
    second = blue - (blue @ luma) / (luma @ luma) * luma
    second = second / second.norm()
    first = torch.linalg.cross(luma, second)
    first = first / first.norm()
    return (first if float(first[0]) > 0 else -first), second


def _turn(count: int) -> StimulusAxis:
    return StimulusAxis(name="direction", values=angles(count), period=2 * math.pi)


def _drawn(
    name: str,
    size: int,
    axes: tuple[StimulusAxis, ...],
    draw: Callable[..., Tensor],
    contrast: float,
) -> Stimuli:
    """Each combination as ``1/2 + contrast/2 draw(...)``, in three equal channels if grey."""
    if size < _LEAST:
        raise ShapeError(
            f"Stimuli must be at least {_LEAST} pixels wide; got {size}. Choose a larger size."
        )
    _check(0 < contrast <= 1, "contrast", "above 0 and at most 1", contrast)
    drawn = [draw(*values) for values in product(*(axis.values for axis in axes))]
    images = torch.stack([d.expand(3, -1, -1) for d in drawn]) * (contrast / 2) + 0.5
    low, high = torch.aminmax(images)
    _check(float(low) >= 0 and float(high) <= 1, "colour", "within 0 … 1", float(high))
    return Stimuli(name=name, images=images, axes=axes)


def _check(holds: bool, what: str, must: str, value: float) -> None:
    if not holds:
        raise ValueRangeError(f"A stimulus's {what} must be {must}; got {value:g}. Choose another.")
