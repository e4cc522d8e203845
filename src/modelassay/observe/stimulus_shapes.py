"""The lines, sides, arcs and textures that synthetic stimuli are drawn from.

Coordinates and angles are those of `stimuli`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError

_BAND = 0.25  # octaves to either side of a texture's frequency (ours)


def coordinates(
    size: int,
) -> tuple[Float[Tensor, "{size} {size}"], Float[Tensor, "{size} {size}"]]:
    """Every pixel's place from the image's middle, rightwards and upwards."""
    place = torch.arange(size) - (size - 1) / 2
    return place[None, :].expand(size, size), -place[:, None].expand(size, size)


def across(size: int, angle: float) -> Float[Tensor, "{size} {size}"]:
    """Every pixel's place along a direction."""
    x, y = coordinates(size)
    return x * math.cos(angle) + y * math.sin(angle)


def side(distance: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """-1 on one side of a line and 1 on the other, within a pixel."""
    return (2 * distance).clamp(-1, 1)


def stroke(distance: Float[Tensor, "row column"], thickness: float) -> Float[Tensor, "row column"]:
    """1 within a line of some thickness and 0 outside, within a pixel."""
    return (thickness / 2 - distance + 0.5).clamp(0, 1)


def from_arc(
    size: int, angle: float, radius: float, offset: float
) -> tuple[Float[Tensor, "{size} {size}"], Float[Tensor, "{size} {size}"]]:
    """Distance to the arc, positive inside, and distance along it from its middle."""
    inward = across(size, angle) - offset
    sideways = across(size, angle + math.pi / 2)
    if math.isinf(radius):
        return inward, sideways.abs()
    from_centre = torch.hypot(radius - inward, sideways)
    turned = torch.atan2(sideways, radius - inward).abs()
    return radius - from_centre, radius * turned


def texture(
    size: int, frequency: float, generator: torch.Generator
) -> Float[Tensor, "{size} {size}"]:
    """Gaussian noise of one band, with mean 0 and deviation 1."""
    noise = torch.randn(size, size, generator=generator)
    rows, columns = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    octaves = torch.log2(torch.hypot(rows[:, None], columns[None]).clamp_min(1e-9) / frequency)
    kept = torch.fft.irfft2(torch.fft.rfft2(noise) * (octaves.abs() <= _BAND), s=(size, size))
    if not bool(kept.any()):
        raise ValueRangeError(
            f"A stimulus's frequency must be one that {size} pixels can hold; got {frequency:g}. "
            "Choose another."
        )
    return (kept - kept.mean()) / kept.std(correction=0)
