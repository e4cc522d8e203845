"""How much of each spatial frequency natural images have."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.visualize.colour import LUCID_COLOURS, ColourAxes
from modelassay.observe.visualize.image_input import check_images

Size = tuple[int, int]


def frequencies(size: Size) -> Float[Tensor, "h half_w"]:
    """Length of the frequency of each coefficient of `rfft2`, in cycles a pixel."""
    down = torch.fft.fftfreq(size[0])[:, None]
    across = torch.fft.rfftfreq(size[1])[None, :]
    return (down.square() + across.square()).sqrt()


def power_law(size: Size, decay: float) -> Float[Tensor, "h half_w"]:
    """``1 / max(frequency, 1 / longer side)^decay``, which leaves the mean finite."""
    return frequencies(size).clamp_min(1.0 / max(size)) ** -decay


@final
@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """Mean magnitude of each frequency, for each of three independent colour axes."""

    magnitude: Float[Tensor, "3 h half_w"]
    size: Size
    """Of the images that it was measured on."""

    def at(self, size: Size) -> Float[Tensor, "3 height half_width"]:
        """The magnitudes for images of another size, at the same frequencies in cycles a pixel.

        Bilinear between the measured frequencies; beyond the highest of them it stays the same.
        """
        # From the order of the transform, where negative frequencies come last, to a plane.
        plane = torch.fft.fftshift(self.magnitude, dim=1)
        rows, columns = plane.shape[1:]
        down = torch.fft.fftfreq(size[0]) * self.size[0] + self.size[0] // 2
        across = torch.fft.rfftfreq(size[1]) * self.size[1]
        y = 2 * down / max(rows - 1, 1) - 1
        x = 2 * across / max(columns - 1, 1) - 1
        grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)
        found = F.grid_sample(
            plane[None], grid[None].to(plane), padding_mode="border", align_corners=True
        )
        return found[0]

    @property
    def decay(self) -> float:
        """Exponent of the best power law: minus the slope of log magnitude on log frequency."""
        frequency = frequencies(self.size)
        used = frequency > 0
        x = frequency[used].double().log()
        y = self.magnitude.double().mean(0)[used].log()
        x = x - x.mean()
        return -float((x * (y - y.mean())).sum() / x.square().sum())


def spectrum_of(
    images: Float[Tensor, "n channels h w"], colours: ColourAxes = LUCID_COLOURS
) -> Spectrum:
    """The mean magnitude over any set of images, along independent colour axes.

    Args:
        images: in 0 … 1, all of one size.
        colours: the axes that the image will be optimised in.
    """
    check_images(images)
    independent = colours.independent(images - images.mean((0, 2, 3), keepdim=True))
    magnitude = torch.fft.rfft2(independent, norm="ortho").abs().mean(0)
    return Spectrum(magnitude, (images.shape[2], images.shape[3]))


def natural_spectrum(size: Size, decay: float = 1.0) -> Spectrum:
    """The usual assumption about natural images: a power law, all colour axes alike."""
    return Spectrum(power_law(size, decay).expand(3, -1, -1).contiguous(), size)
