"""Which pixels a position of a layer can see: receptive fields, found by probing the structure.

Gradients of the trained model itself miss pixels: a dead rectifier, a pruned weight or the argument
of a maximum hides them. So a copy is probed in which every weight is positive, rectifiers pass
everything and a maximum is a mean. There a gradient is zero only where no path leads to.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode

from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.visualize.feature_maps import feature_maps, layer_shapes
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput

_AT_ONCE = 8  # positions probed in one pass (ours)

Position = tuple[int, int]
"""Row and column of a layer; in a layer of tokens the token and 0."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows `top` to `bottom - 1`, columns `left` to `right - 1`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    def crop(self, image: Float[Tensor, "channel h w"]) -> Float[Tensor, "channel _h _w"]:
        """What of an image lies inside."""
        return image[:, self.top : self.bottom, self.left : self.right]


@final
@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ReceptiveFields:
    """The receptive fields of all positions of a layer, for images of one size."""

    layer: str
    image_size: tuple[int, int]
    boxes: Int[Tensor, "row column 4"]
    """Top, left, bottom, right, without what lies outside the image."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the layer."""
        return self.boxes.shape[0], self.boxes.shape[1]

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest field: the whole field, if any position has it whole."""
        height = self.boxes[..., 2] - self.boxes[..., 0]
        width = self.boxes[..., 3] - self.boxes[..., 1]
        return int(height.max()), int(width.max())

    def box(self, position: Position) -> Box:
        """The field of a position, clipped at the image's borders.

        Raises:
            ValueRangeError: if the layer has no such position.
        """
        rows, columns = self.shape
        row, column = position
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueRangeError(
                f"A position in {self.layer!r} must lie within {rows} rows and {columns} columns; "
                f"got {position}. Choose another."
            )
        top, left, bottom, right = self.boxes[row, column].tolist()
        return Box(top, left, bottom, right)

    def centre(self, position: Position) -> tuple[float, float]:
        """Middle of the whole field in pixels, as if the image went on beyond its borders.

        A field that two opposite borders clip counts as it is.
        """
        box, (height, width) = self.box(position), self.largest
        return (
            _middle(box.top, box.bottom, height, self.image_size[0]),
            _middle(box.left, box.right, width, self.image_size[1]),
        )


def receptive_fields(
    module: nn.Module,
    layer: str,
    size: tuple[int, int],
    *,
    image_input: ImageInput = IMAGENET,
) -> ReceptiveFields:
    """The pixels that each position of a layer can see, whatever the weights are.

    The smallest box around ``{pixel : d a[row, column] / d pixel != 0}`` in the probed copy. Global
    operations (attention, normalisation over positions, squeeze-and-excitation) give the whole
    image, as they must. Pixels are those of the image before `image_input` resizes it.

    Rows and columns are probed one by one, as they are independent in convolutions, pooling and
    windows; where a position off the axes contradicts that, every position is probed.

    Args:
        module: the model; a copy of it is probed in float64 on the CPU.
        layer: path of a module, as in `feature_maps`.
        size: height and width of the images.
        image_input: what the model wants its images to look like.

    Raises:
        UnknownNameError: if the model has no such layer.
        UnsupportedModelError: if the layer does not depend on the image.
        ShapeError: if the model cannot take such images.
    """
    probed = _probed_copy(module)
    images = 0.9 + 0.1 * torch.rand(1, 3, *size, generator=derived(0, "image"), dtype=torch.float64)
    with _Passing():
        _, rows, columns = layer_shapes(probed, [layer], image_input(images))[layer]
    look = _Probe(probed, layer, image_input, images)
    down = look([(row, columns // 2) for row in range(rows)])
    across = look([(rows // 2, column) for column in range(columns)])
    boxes = torch.stack(
        [
            down[:, None, 0].expand(rows, columns), across[None, :, 1].expand(rows, columns),
            down[:, None, 2].expand(rows, columns), across[None, :, 3].expand(rows, columns),
        ],
        dim=2,
    )  # fmt: skip
    if columns == 1:
        boxes = down[:, None]
    elif rows == 1:
        boxes = across[None]
    elif not torch.equal(look([(0, columns - 1)])[0], boxes[0, columns - 1]):
        every = [(row, column) for row in range(rows) for column in range(columns)]
        boxes = look(every).view(rows, columns, 4)
    return ReceptiveFields(layer=layer, image_size=size, boxes=boxes.contiguous())


def _middle(low: int, high: int, full: int, side: int) -> float:
    if low == 0 and high < side:
        return high - full / 2
    if high == side and low > 0:
        return low + full / 2
    return (low + high) / 2


def _probed_copy(module: nn.Module) -> nn.Module:
    """A copy in which every path counts: weights at random in 0.5 … 1.5, divided by the inputs.

    Not all equal, or a normalisation over channels would cancel what all of them share.
    """
    probed = copy.deepcopy(module).cpu().double().eval().requires_grad_(False)
    draws = derived(0, "receptive field")
    for parameter in probed.parameters():
        if parameter.is_floating_point():
            inputs = max(
                1, parameter.numel() // max(1, len(parameter)) if parameter.ndim > 1 else 1
            )
            drawn = torch.rand(parameter.shape, generator=draws, dtype=torch.float64)
            parameter.copy_((drawn + 0.5) / inputs)
    for part in probed.modules():
        if isinstance(part, _BatchNorm):
            part.reset_running_stats()
    return probed


@dataclass(frozen=True, slots=True)
class _Probe:
    module: nn.Module
    layer: str
    image_input: ImageInput
    images: Tensor

    def __call__(self, positions: Sequence[Position]) -> Int[Tensor, "position 4"]:
        """The boxes of some positions."""
        found = [
            self._boxes(torch.tensor(positions[begin : begin + _AT_ONCE]))
            for begin in range(0, len(positions), _AT_ONCE)
        ]
        return torch.cat(found)

    def _boxes(self, positions: Tensor) -> Tensor:
        images = self.images.expand(len(positions), -1, -1, -1).contiguous().requires_grad_()
        with _Passing():
            maps = feature_maps(self.module, [self.layer], self.image_input(images))[self.layer]
        rows, columns = positions.T
        there = maps[torch.arange(len(positions)), :, rows, columns]
        # Unequal weights, for the layer's own normalisation makes plain sums constant.
        total = (there * torch.linspace(0.5, 1.5, there.shape[1], dtype=there.dtype)).sum()
        gradient = None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, images, allow_unused=True)
        if gradient is None or not bool(gradient.flatten(1).any(1).all()):
            raise UnsupportedModelError(
                f"A layer must depend on the image to have receptive fields; got {self.layer!r}, "
                "through which no gradient comes. Name another layer."
            )
        seen = (gradient != 0).any(1)
        (top, bottom), (left, right) = _extent(seen.any(2)), _extent(seen.any(1))
        return torch.stack([top, left, bottom, right], dim=1)


def _extent(seen: Tensor) -> tuple[Tensor, Tensor]:
    """First pixel seen, and the first after the last."""
    marks = seen.int()
    return marks.argmax(1), seen.shape[1] - marks.flip(1).argmax(1)


_RELU: tuple[Callable[..., Any], ...] = (
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh,
    torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clamp_,
)  # fmt: skip
_MAXIMUM: tuple[Callable[..., Any], ...] = (
    F.max_pool2d, torch.max_pool2d, F.max_pool2d_with_indices,
)  # fmt: skip


@final
class _Passing(TorchFunctionMode):
    """While this lasts, rectifiers and limits pass everything; maxima over windows are means."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        options = kwargs or {}
        if func in _RELU:
            return args[0] if args else options["input"]
        if func in _MAXIMUM:
            return _mean_pool(*args, **options)
        if func is F.adaptive_max_pool2d:
            return F.adaptive_avg_pool2d(*args[:2])
        return func(*args, **options)


def _mean_pool(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor:  # fmt: skip
    del return_indices
    sizes, steps = _pair(kernel_size), _pair(stride or kernel_size)
    # A dilated window is filled: its box is the same.
    filled = tuple(d * (k - 1) + 1 for k, d in zip(sizes, _pair(dilation), strict=True))
    return F.avg_pool2d(input, filled, steps, _pair(padding), ceil_mode)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
