"""One unit with its strongest inputs, each with a picture: what is drawn as a circuit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.observe.circuits.connections import Connection, connections, strongest
from modelassay.observe.circuits.expansion import ExpandedWeights, expanded_weights
from modelassay.observe.circuits.linear_run import INPUT
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.render import render
from modelassay.observe.visualize.settings import DEFAULT
from modelassay.observe.visualize.targets import Channel

Icons = Callable[[str, Sequence[int]], Float[Tensor, "n 3 h w"]]
"""Pictures of channels of a layer."""
ICON_SETTINGS = replace(DEFAULT, size=(64, 64), steps=64)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnitCircuit:
    """A unit, and the channels that excite and inhibit it most."""

    source: str
    target: str
    channel: int
    ranked: tuple[Connection, ...]
    """All inputs, the strongest first."""
    excitatory: tuple[Connection, ...]
    inhibitory: tuple[Connection, ...]
    icon: Float[Tensor, "3 h w"]
    icons: dict[int, Float[Tensor, "3 _height _width"]]
    """Pictures of the strongest inputs, by channel."""


def unit_circuits(
    weights: ExpandedWeights,
    icons: Icons,
    *,
    count: int = 5,
    scale: Float[Tensor, " scaled"] | None = None,
) -> tuple[UnitCircuit, ...]:
    """The circuits of the units whose weights are given.

    Args:
        weights: from a layer, or from the input, whose channels are then the inputs.
        icons: makes the pictures.
        count: the most excitatory and the most inhibitory inputs of each unit.
        scale: of the source's channels, as `connections` takes it.

    Raises:
        ShapeError: as `connections`.
    """
    ranked = [connections(kernels, scale) for kernels in weights.kernels]
    sides = [strongest(found, count) for found in ranked]
    shown = sorted({each.channel for side in sides for part in side for each in part})
    own = icons(weights.target, weights.channels)
    of_inputs: dict[int, Tensor] = {}
    if weights.source != INPUT and shown:
        of_inputs = dict(zip(shown, icons(weights.source, shown), strict=True))
    return tuple(
        UnitCircuit(
            source=weights.source,
            target=weights.target,
            channel=channel,
            ranked=ranked[index],
            excitatory=sides[index][0],
            inhibitory=sides[index][1],
            icon=own[index],
            icons=of_inputs,
        )
        for index, channel in enumerate(weights.channels)
    )


def weight_icons(module: nn.Module, n_inputs: int = 3) -> Icons:
    """Pictures of weights expanded to the input: grey is 0, each scaled to its largest."""

    def draw(layer: str, channels: Sequence[int]) -> Tensor:
        found = expanded_weights(module, INPUT, layer, list(channels), n_inputs=n_inputs).kernels
        largest = found.abs().flatten(1).amax(1).clamp_min(torch.finfo(found.dtype).tiny)
        return (0.5 + found / largest[:, None, None, None] / 2).expand(-1, 3, -1, -1)

    return draw


def optimised_icons(
    module: nn.Module, *, image_input: ImageInput = IMAGENET, seed: int = 0
) -> Icons:
    """Small images optimised for channels (64 pixels, 64 steps; ours)."""

    def draw(layer: str, channels: Sequence[int]) -> Tensor:
        targets = [Channel(layer, channel) for channel in channels]
        return render(
            module, targets, settings=ICON_SETTINGS, image_input=image_input, seed=seed
        ).images

    return draw


@torch.no_grad()
def activity(
    module: nn.Module,
    layer: str,
    images: Float[Tensor, "n 3 h w"],
    *,
    image_input: ImageInput = IMAGENET,
) -> Float[Tensor, " channel"]:
    """Root mean square of each channel over images and positions."""
    device = next(module.parameters(), torch.empty(0)).device
    maps = feature_maps(module, [layer], image_input(images.to(device)))[layer]
    return maps.square().mean((0, 2, 3)).sqrt().cpu()
