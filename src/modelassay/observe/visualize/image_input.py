"""What a model wants its images to look like."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInput:
    """From an image in 0 … 1 to what a model reads.

    ``x = (low + (high - low) * image - mean) / deviation``, per channel.
    """

    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """One number a channel: three for RGB, one for a model of grey images."""
    deviation: tuple[float, ...] = (1.0, 1.0, 1.0)
    size: tuple[int, int] | None = None
    """Height and width that images are resized to, for models that take no other; None: as
    they come."""

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.deviation):
            raise ValueRangeError(
                "mean and deviation must have one number for each of 1 or 3 channels; got "
                f"{len(self.mean)} and {len(self.deviation)}. Pass one number for grey images."
            )
        if min(self.deviation) <= 0 or self.low >= self.high:
            raise ValueRangeError(
                "deviation must be above 0 and low below high; got "
                f"{self.deviation}, {self.low} and {self.high}. Pass the model's own values."
            )

    @property
    def grey(self) -> bool:
        """Whether the model reads one channel."""
        return len(self.mean) == 1

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c height width"]:
        """The model's input; grey is the mean of the three channels."""
        if self.grey:
            images = images.mean(1, keepdim=True)
        if self.size is not None and images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False)
        mean = images.new_tensor(self.mean).view(-1, 1, 1)
        deviation = images.new_tensor(self.deviation).view(-1, 1, 1)
        read = (images * (self.high - self.low) + self.low - mean) / deviation
        # Pooling and convolutions run a quarter faster on the CPU when channels lie together.
        return read.contiguous(memory_format=torch.channels_last)


IMAGENET = ImageInput(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
"""As torchvision's classifiers were trained."""
INCEPTION_V1 = ImageInput(low=-117.0, high=138.0)
"""As the InceptionV1 of lucid (lucid's `modelzoo`) reads images."""
UNIT = ImageInput()
"""RGB in 0 … 1, unchanged."""
GREY = ImageInput(mean=(0.0,), deviation=(1.0,))
"""One channel in 0 … 1, unchanged."""


def check_images(images: Tensor, what: str = "Images") -> None:
    """Refuse what is not a batch of RGB images in 0 … 1.

    Raises:
        ShapeError: if the shape is not ``[n, 3, h, w]``.
        ValueRangeError: if a value lies outside 0 … 1, or is NaN.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        grey = images.ndim == 4 and images.shape[1] == 1
        remedy = (
            "Repeat the grey channel: images.expand(-1, 3, -1, -1)."
            if grey
            else "Put colours first and add an axis for the batch."
        )
        raise ShapeError(
            f"{what} must have the shape [n, 3, height, width]; got {list(images.shape)}. {remedy}"
        )
    low, high = torch.aminmax(images)
    if not (float(low) >= 0 and float(high) <= 1):
        raise ValueRangeError(
            f"{what} must have values in 0 … 1; got {float(low):.4g} … {float(high):.4g}. "
            "Divide bytes by 255, and undo a normalisation."
        )
