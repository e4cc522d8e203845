"""Weights from one feature map to another, through one layer or through several.

Between two maps that a convolution joins, the weights are the convolution's. Through more layers
they are those of the network without its nonlinearities: what a unit of the later map would gain
from each place of the earlier one if every rectifier were open and every maximum a mean. They are
found by running the module, so that branches, concatenations and sums are what the module makes of
them (expanded weights: Voss et al. 2021, Visualizing weights).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, UnsupportedModelError
from modelassay.observe.circuits.linear_run import LinearRun

_SIZES = (64, 128, 256, 512)  # pixels, tried one after another


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExpandedWeights:
    """What units of one feature map receive from every place of an earlier one."""

    source: str
    target: str
    channels: tuple[int, ...]
    """Channels of the target."""
    kernels: Float[Tensor, "out in row column"]
    """As a convolution has them (not flipped); the middle lies over the unit."""
    layers: int
    """Convolutions and products with weights on the longest way; 1 if joined directly."""
    replaced: Mapping[str, int]
    """Nonlinear functions between the input and the target that were made linear."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the kernels: the receptive field in the source."""
        return self.kernels.shape[2], self.kernels.shape[3]


def expanded_weights(
    module: nn.Module,
    source: str,
    target: str,
    channels: Sequence[int] | None = None,
    *,
    n_inputs: int = 3,
    size: int | None = None,
) -> ExpandedWeights:
    """The linearised weights ``d target[c, middle] / d source``, computed in float64.

    Exact for the linear parts. Rectifiers pass everything, max pooling is the mean over its window;
    paths that do not lead through the source do not count.

    Args:
        module: any module that takes images; it is left alone.
        source: path of the module whose output is the earlier map, or "input".
        target: path of the module whose output is the later map.
        channels: of the target; None for all.
        n_inputs: channels of the model's input.
        size: side of the model's input, for models that take only one; by default the smallest of
            64, 128, 256 and 512 pixels in which the unit's receptive field does not touch the edge.

    Raises:
        UnknownNameError: if the model has no such module.
        UnsupportedModelError: if the outputs are no maps of channels, if nothing leads from source
            to target, or if a nonlinear function remains on the way.
        ValueRangeError: if the target has no such channel.
        ShapeError: if the model takes no image of this size, or a receptive field does not fit.
    """
    for side in (size,) if size else _SIZES:
        run = LinearRun(module, source, target, (n_inputs, side, side))
        box = run.receptive_field()
        if box is None:
            continue
        chosen, kernels = run.kernels(box, channels)
        return ExpandedWeights(
            source=source,
            target=target,
            channels=chosen,
            kernels=kernels,
            layers=run.layers,
            replaced=run.replaced,
        )
    raise ShapeError(
        f"A receptive field of {target!r} in {source!r} must lie inside the map; got one that "
        f"touches its edge for an input of {size or _SIZES[-1]} pixels. "
        "Name layers closer to each other, or pass a larger size."
    )


def direct_weights(
    module: nn.Module,
    source: str,
    target: str,
    channels: Sequence[int] | None = None,
    *,
    n_inputs: int = 3,
    size: int | None = None,
) -> ExpandedWeights:
    """The weights between two maps that one convolution joins; arguments as `expanded_weights`.

    Raises:
        UnsupportedModelError: if more than one convolution lies between them.
    """
    found = expanded_weights(module, source, target, channels, n_inputs=n_inputs, size=size)
    if found.layers != 1:
        raise UnsupportedModelError(
            f"Layers must be joined directly, by one convolution; got {found.layers} between "
            f"{source!r} and {target!r}. Use expanded_weights."
        )
    return found
