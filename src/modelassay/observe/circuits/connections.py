"""What a unit's weights say: its strongest inputs, and how far to believe it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.observe.circuits.expansion import ExpandedWeights
from modelassay.observe.circuits.linear_run import INPUT, LinearRun
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput, check_images


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Connection:
    """One input channel of a unit."""

    channel: int
    kernel: Float[Tensor, "row column"]
    strength: float
    """Norm of the kernel, times the channel's scale if one was given."""
    total: float
    """Sum of the kernel's weights: excites a unit on a uniform map if above 0."""
    share: float
    """Of the squared strengths of all channels."""

    @property
    def excitatory(self) -> bool:
        """Whether the weights' sum is not below 0."""
        return self.total >= 0


def connections(
    kernels: Float[Tensor, "in row column"], scale: Float[Tensor, " scaled"] | None = None
) -> tuple[Connection, ...]:
    """A unit's input channels, the strongest first.

    Args:
        kernels: a unit's weights.
        scale: how large each channel's activations are, such as their root mean square over
            images: a large weight on a channel that is hardly ever active does little.

    Raises:
        ShapeError: if the scale is not one number a channel.
    """
    if scale is not None and scale.shape != kernels.shape[:1]:
        raise ShapeError(
            f"The scale must have one number for each of {len(kernels)} input channels; got "
            f"{list(scale.shape)}. Measure it at the source of the weights."
        )
    strengths = kernels.flatten(1).norm(dim=1)
    strengths = strengths if scale is None else strengths * scale
    whole = float(strengths.square().sum()) or 1.0
    totals = kernels.sum((1, 2))
    return tuple(
        Connection(
            channel=index,
            kernel=kernels[index],
            strength=float(strengths[index]),
            total=float(totals[index]),
            share=float(strengths[index]) ** 2 / whole,
        )
        for index in strengths.argsort(descending=True, stable=True).tolist()
    )


def strongest(
    found: tuple[Connection, ...], count: int
) -> tuple[tuple[Connection, ...], tuple[Connection, ...]]:
    """The strongest excitatory and the strongest inhibitory connections, at most `count` each.

    Connections of strength 0 are left out.
    """
    some = [each for each in found if each.strength > 0]
    excitatory = tuple(each for each in some if each.excitatory)[:count]
    return excitatory, tuple(each for each in some if not each.excitatory)[:count]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fidelity:
    """How well expanded weights predict what the real network does."""

    correlation: Float[Tensor, " channel"]
    """Of the predicted with the real change between two images at one place; NaN for a unit that
    never changes."""
    other: Float[Tensor, " channel"]
    """The same with the weights of the next of these channels in place of the unit's own: what any
    weights of the layer predict. NaN if there is only one."""
    n_changes: int


def fidelity(
    module: nn.Module,
    weights: ExpandedWeights,
    images: Float[Tensor, "n 3 h w"],
    *,
    image_input: ImageInput = IMAGENET,
) -> Fidelity:
    """Compare linear predictions from the source's real activations with the target's real ones.

    Changes are those from each image to the next, at every position of the target. The target's
    output is taken as it is: a rectifier in the target counts as a deviation.

    Raises:
        TooFewTokensError: with fewer than two images.
        ShapeError, ValueRangeError: if the images are not RGB in 0 … 1.
        UnsupportedModelError: as `expanded_weights`.
    """
    check_images(images)
    if len(images) < 2:
        raise TooFewTokensError(
            f"Changes need at least 2 images; got {len(images)}. Pass more of them."
        )
    device = next(module.parameters(), torch.empty(0)).device
    inputs = image_input(images.to(device))
    layers = [weights.target] + ([] if weights.source == INPUT else [weights.source])
    with torch.no_grad():
        maps = feature_maps(module, layers, inputs)
    run = LinearRun(
        module, weights.source, weights.target, (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    )
    predicted = run.response(maps.get(weights.source, inputs))[:, list(weights.channels)]
    real = maps[weights.target][:, list(weights.channels)]
    changes = [(x.roll(-1, 0) - x).transpose(0, 1).flatten(1).double() for x in (predicted, real)]
    other = _correlation(changes[0].roll(-1, 0), changes[1])
    if len(weights.channels) == 1:
        other = torch.full_like(other, torch.nan)
    return Fidelity(
        correlation=_correlation(*changes), other=other, n_changes=int(changes[0].shape[1])
    )


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    first, second = (x - x.mean(1, keepdim=True) for x in (first, second))
    # 0 / 0 is NaN: a unit that never changes has no correlation.
    return ((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))).float().cpu()
