"""Coordinates in which an image is optimised.

Gradient ascent goes where its coordinates make it easy. In pixels that is noise of high frequency;
in the Fourier coefficients of independent colours, scaled as natural images are, it is an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.visualize.colour import LUCID_COLOURS, ColourAxes
from modelassay.observe.visualize.spectrum import Size, power_law

_EDGE = 1e-3  # ours: 0 and 1 have no finite place behind the sigmoid


@runtime_checkable
class Parametrisation(Protocol):
    """A way to write images as free numbers."""

    def start(self, size: Size, generators: Sequence[torch.Generator]) -> Float[Tensor, "n ..."]:
        """Numbers to begin with, one image for each generator."""
        ...

    def images(self, numbers: Float[Tensor, "n ..."], size: Size) -> Float[Tensor, "n 3 h w"]:
        """The images in 0 … 1; differentiable."""
        ...

    def numbers(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n ..."]:
        """The numbers of given images, as near as the parametrisation allows."""
        ...


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Fourier:
    """Coefficients of independent colours, scaled by a power of the frequency (lucid's default).

    ``z = irfft2(scale * coefficients, orthonormal) / 4``, ``image = sigmoid(C z)`` with the scale
    ``1 / max(frequency, 1 / longer side)^decay``. Sides may be odd.
    """

    decay: float = 1.0
    deviation: float = 0.01
    """Of the coefficients at the start."""
    divisor: float = 4.0
    colours: ColourAxes = LUCID_COLOURS

    def start(
        self, size: Size, generators: Sequence[torch.Generator]
    ) -> Float[Tensor, "n 3 h half_w 2"]:
        """Normal coefficients, real and imaginary parts last."""
        shape = (3, size[0], size[1] // 2 + 1, 2)
        drawn = [torch.randn(shape, generator=g) for g in generators]
        return torch.stack(drawn) * self.deviation

    def images(
        self, numbers: Float[Tensor, "n 3 h half_w 2"], size: Size
    ) -> Float[Tensor, "n 3 h w"]:
        """The images in 0 … 1."""
        return torch.sigmoid(self.colours.correlated(self.signal(numbers, size)))

    def signal(
        self, numbers: Float[Tensor, "n 3 h half_w 2"], size: Size
    ) -> Float[Tensor, "n 3 h w"]:
        """The image in independent colours, before the squashing."""
        scale = power_law(size, self.decay).to(numbers)
        spectrum = torch.view_as_complex(numbers) * scale
        return torch.fft.irfft2(spectrum, s=size, norm="ortho") / self.divisor

    def numbers(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h half_w 2"]:
        """The coefficients of images; values nearer to 0 or 1 than 0.001 are moved there."""
        signal = self.colours.independent(images.clamp(_EDGE, 1 - _EDGE).logit())
        spectrum = torch.fft.rfft2(signal * self.divisor, norm="ortho")
        scale = power_law((images.shape[2], images.shape[3]), self.decay).to(images)
        return torch.view_as_real(spectrum / scale).contiguous()


FOURIER = Fourier()
"""lucid's default."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """One number a pixel and independent colour: ``image = sigmoid(C z)``."""

    deviation: float = 0.01
    """Of the numbers at the start."""
    colours: ColourAxes = LUCID_COLOURS

    def start(self, size: Size, generators: Sequence[torch.Generator]) -> Float[Tensor, "n 3 h w"]:
        """Normal numbers."""
        drawn = [torch.randn((3, *size), generator=g) for g in generators]
        return torch.stack(drawn) * self.deviation

    def images(self, numbers: Float[Tensor, "n 3 h w"], size: Size) -> Float[Tensor, "n 3 h w"]:
        """The images in 0 … 1."""
        del size
        return torch.sigmoid(self.colours.correlated(numbers))

    def numbers(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The numbers of images; values nearer to 0 or 1 than 0.001 are moved there."""
        return self.colours.independent(images.clamp(_EDGE, 1 - _EDGE).logit())
