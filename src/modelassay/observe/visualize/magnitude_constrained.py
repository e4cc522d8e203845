"""MaCo: images whose spectrum has the magnitudes of natural images; only phases are free.

Fel et al. 2023. Whatever is optimised, no frequency can become louder than in a natural image, so
that deep units of large models give pictures and not noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import UnsupportedModelError
from modelassay.observe.visualize.colour import LUCID_COLOURS, ColourAxes
from modelassay.observe.visualize.spectrum import Size, Spectrum, natural_spectrum

_EPSILON = 1e-5  # Fel et al. 2023's code; keeps a constant phase finite


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MagnitudeConstrained:
    """Free phases under fixed magnitudes.

    ``phase <- (phase - mean) / (std + 1e-5)``, ``z = irfft2(magnitude e^(i phase))``,
    standardised to mean 0 and deviation 1 over the image, ``image = sigmoid(C z)``.
    """

    spectrum: Spectrum | None = None
    """Magnitudes of natural images; None: a power law of exponent 1 (ours, see `spectrum_of`)."""
    colours: ColourAxes = LUCID_COLOURS

    def start(
        self, size: Size, generators: Sequence[torch.Generator]
    ) -> Float[Tensor, "n 3 h half_w"]:
        """Normal phases."""
        shape = (3, size[0], size[1] // 2 + 1)
        return torch.stack([torch.randn(shape, generator=g) for g in generators])

    def images(
        self, numbers: Float[Tensor, "n 3 h half_w"], size: Size
    ) -> Float[Tensor, "n 3 h w"]:
        """The images in 0 … 1."""
        return torch.sigmoid(self.colours.correlated(self.signal(numbers, size)))

    def signal(
        self, numbers: Float[Tensor, "n 3 h half_w"], size: Size
    ) -> Float[Tensor, "n 3 h w"]:
        """The image in independent colours, of mean 0 and deviation 1."""
        phase = _standardised(numbers)
        spectrum = self.spectrum or natural_spectrum(size)
        coefficients = torch.polar(spectrum.at(size).to(phase).expand_as(phase), phase)
        return _standardised(torch.fft.irfft2(coefficients, s=size, norm="ortho"))

    def numbers(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h half_w"]:
        """Refuses: phases are standardised, so those of a given image are out of reach.

        Raises:
            UnsupportedModelError: always.
        """
        raise UnsupportedModelError(
            "A start from given images must use Fourier or Pixels; got MagnitudeConstrained, whose "
            f"magnitudes are fixed, for {len(images)} images. Choose another parametrisation."
        )


def _standardised(values: Tensor) -> Tensor:
    axes = tuple(range(1, values.ndim))
    centred = values - values.mean(axes, keepdim=True)
    return centred / (centred.std(axes, correction=0, keepdim=True) + _EPSILON)
