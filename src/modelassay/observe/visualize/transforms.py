"""Random transformations that an optimised image must survive.

Without them an image holds patterns that excite a unit only as long as nobody moves it by a pixel.
One draw serves the whole batch, so that an image does not depend on what it is optimised beside.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError

Item = TypeVar("Item")
GREY = 0.5


class Transform(ABC):
    """A random change of images in 0 … 1; differentiable."""

    @property
    def views(self) -> int:
        """Images that come out for each one that goes in, behind one another."""
        return 1

    @abstractmethod
    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "view 3 height width"]:
        """The changed images.

        Args:
            images: in 0 … 1.
            generator: decides all draws.
            progress: share of the optimisation that is over.
        """


@final
@dataclass(frozen=True, slots=True)
class Pad(Transform):
    """A border of one colour."""

    width: int
    value: float = GREY

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "n 3 height width"]:
        """The images with a border: both sides grow by twice its width."""
        del generator, progress
        return F.pad(images, [self.width] * 4, value=self.value)


@final
@dataclass(frozen=True, slots=True)
class Jitter(Transform):
    """A random crop whose sides are shorter by some pixels."""

    pixels: int

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "n 3 height width"]:
        """The crop; every place is equally likely."""
        del progress
        height, width = (side - self.pixels for side in images.shape[-2:])
        if min(height, width) < 1:
            raise ShapeError(
                f"An image must be larger than the jitter of {self.pixels} pixels; got "
                f"{list(images.shape[-2:])}. Render larger images, or transform them less."
            )
        top, left = (_whole(self.pixels + 1, generator) for _ in range(2))
        return images[..., top : top + height, left : left + width]


@final
@dataclass(frozen=True, slots=True)
class Scale(Transform):
    """A resize by one of several factors, all equally likely; sides are rounded down."""

    factors: tuple[float, ...]

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "n 3 height width"]:
        """The images at another size, bilinear."""
        del progress
        factor = _one(self.factors, generator)
        # The margin is for products such as 144 x 1.125, which may fall just below 162.
        size = [max(1, math.floor(side * factor + 1e-6)) for side in images.shape[-2:]]
        if size == list(images.shape[-2:]):
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False)


@final
@dataclass(frozen=True, slots=True)
class Rotate(Transform):
    """A rotation by one of several angles about the middle; the size stays."""

    degrees: tuple[float, ...]
    value: float = GREY
    """What comes in at the corners (lucid: 0)."""

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "n 3 h w"]:
        """The rotated images, bilinear; a positive angle turns counter-clockwise."""
        del progress
        angle = _one(self.degrees, generator)
        return images if angle == 0 else warp(images, degrees=angle, value=self.value)


@final
@dataclass(frozen=True, slots=True)
class Warp(Transform):
    """A shift, a scale and a rotation in one resampling; the size stays.

    Cheaper than one after another, and less blurred; sub-pixel shifts are part of it.
    """

    shift: float
    """In pixels; up to this far each way, continuous."""
    factors: tuple[float, float]
    """Range of the scale, uniform in its logarithm."""
    degrees: float
    """Up to this far each way, continuous."""
    value: float = GREY

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "n 3 h w"]:
        """The warped images."""
        del progress
        draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        low, high = (math.log(factor) for factor in self.factors)
        return warp(
            images,
            degrees=(2 * draws[0] - 1) * self.degrees,
            factor=math.exp(low + (high - low) * draws[1]),
            shift=((2 * draws[2] - 1) * self.shift, (2 * draws[3] - 1) * self.shift),
            value=self.value,
        )


@final
@dataclass(frozen=True, slots=True)
class Crops(Transform):
    """Square crops of shrinking size at one resolution, with noise (Fel et al. 2023).

    Centres are N(0.5, 0.15), sides N(b, 0.05) within 0.05 … 1, both as shares of the image, where
    b falls linearly from 0.5 to 0.05; noise is N(0, 0.08) + U(-0.04, 0.04). Crops are moved to lie
    inside the image (ours: no view shows what nobody optimises).
    """

    count: int = 32
    size: int = 224
    sides: tuple[float, float] = (0.5, 0.05)
    noise: float = 0.08

    @property
    def views(self) -> int:
        """Crops of each image."""
        return self.count

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], generator: torch.Generator, progress: float
    ) -> Float[Tensor, "view 3 height width"]:
        """The crops, all of one image behind one another."""
        middle = 0.5 + 0.15 * torch.randn(self.count, 2, generator=generator)
        wanted = self.sides[0] + (self.sides[1] - self.sides[0]) * progress
        side = (wanted + 0.05 * torch.randn(self.count, 1, generator=generator)).clamp(0.05, 1.0)
        middle = torch.minimum(torch.maximum(middle, side / 2), 1 - side / 2) * 2 - 1
        theta = torch.zeros(self.count, 2, 3)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = side[:, 0], side[:, 0], middle
        shape = (self.count, 3, self.size, self.size)
        grid = F.affine_grid(theta, list(shape), align_corners=False).to(images)
        normal = torch.randn(shape, generator=generator) * self.noise
        uniform = (torch.rand(shape, generator=generator) - 0.5) * self.noise
        repeated = images.repeat_interleave(self.count, 0)
        grid = grid.repeat(len(images), 1, 1, 1)
        crops = F.grid_sample(repeated, grid, padding_mode="border", align_corners=False)
        return crops + (normal + uniform).to(images).repeat(len(images), 1, 1, 1)


def warp(
    images: Float[Tensor, "n 3 h w"],
    *,
    degrees: float = 0.0,
    factor: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    value: float = GREY,
) -> Float[Tensor, "n 3 h w"]:
    """Images turned counter-clockwise, enlarged and shifted (down, right), about the middle."""
    height, width = images.shape[-2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # From a place in the result to the one in the image; both axes run from -1 to 1.
    theta = torch.tensor(
        [
            [cosine / factor, -sine / factor * height / width, 0.0],
            [sine / factor * width / height, cosine / factor, 0.0],
        ]
    )
    theta[:, 2] = -theta[:, :2] @ torch.tensor([2 * shift[1] / width, 2 * shift[0] / height])
    grid = F.affine_grid(theta[None], [1, 3, height, width], align_corners=False).to(images)
    grid = grid.expand(len(images), -1, -1, -1)
    # Outside lies 0: shift the colours so that 0 is the border's.
    return F.grid_sample(images - value, grid, align_corners=False) + value


def apply(
    transforms: Sequence[Transform],
    images: Float[Tensor, "n 3 h w"],
    generator: torch.Generator,
    progress: float = 0.0,
) -> Float[Tensor, "view 3 height width"]:
    """One transformation after another."""
    for transform in transforms:
        images = transform(images, generator, progress)
    return images


def views(transforms: Sequence[Transform]) -> int:
    """Views of each image that come out of some transformations."""
    return math.prod(transform.views for transform in transforms)


def _whole(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def _one(items: Sequence[Item], generator: torch.Generator) -> Item:
    return items[_whole(len(items), generator)]


def _turns(*limits: int) -> tuple[float, ...]:
    return tuple(float(a) for limit in limits for a in range(-limit, limit))


LUCID: tuple[Transform, ...] = (
    Pad(12),
    Jitter(8),
    Scale(tuple(1 + step / 50 for step in range(-5, 6))),
    Rotate((*(float(angle) for angle in range(-10, 11)), *[0.0] * 5), value=0.0),
    Jitter(4),
)
"""lucid's standard set (`optvis/transform.py`)."""

_ANGLES = (*_turns(20, 10, 5), *[0.0] * 5)

DISTILL: tuple[Transform, ...] = (
    Pad(2),
    *[Jitter(4)] * 10,
    Scale((*(0.995**n for n in range(-5, 80)), *[0.998**n for n in range(20, 40)] * 2)),
    Rotate(_ANGLES),
    Jitter(2),
)
"""The stronger set of Olah et al. 2017, as captum's `TransformationRobustness` has it."""

ATLAS: tuple[Transform, ...] = (
    Pad(16),
    *(Jitter(pixels) for pixels in (4, 4, 8, 8, 8)),
    Scale(tuple(0.998**n for n in range(20, 40))),
    Rotate(_ANGLES),
    Jitter(2),
)
"""For the icons of an activation atlas; lucid crops to the image's size afterwards."""
