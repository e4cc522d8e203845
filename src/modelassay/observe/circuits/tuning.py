"""Responses of channels to stimuli, and how selective they are for one property.

A property with a period (orientation, direction, hue) is summed up by the resultant of the
responses, ``|Σ R e^{2πi v / period}| / Σ R``: one less their circular variance. For orientations,
whose period is half a turn, it is the orientation selectivity index; for directions, the direction
selectivity index. A property without a period has ``(max - min) / (max + min)``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.stimuli import Stimuli, StimulusAxis, uniform
from modelassay.observe.visualize.feature_maps import feature_maps, layer_shapes
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput

Pooling = Literal["mean", "max", "centre"]
PERMUTATIONS = 199
"""The smallest p-value is then 0.005 (ours)."""
_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Responses:
    """How strongly each channel responds to each stimulus, less its response to uniform grey."""

    layer: str
    values: Float[Tensor, "channel ..."]
    axes: tuple[StimulusAxis, ...]
    resting: Float[Tensor, " channel"]
    """The response to uniform grey, which was subtracted."""

    @property
    def silent(self) -> tuple[int, ...]:
        """Channels that respond to every stimulus as to grey: nothing can be said of them."""
        return tuple((self.values.flatten(1) == 0).all(1).nonzero().flatten().tolist())


def responses(
    module: nn.Module,
    layer: str,
    stimuli: Stimuli,
    *,
    pooling: Pooling = "mean",
    image_input: ImageInput = IMAGENET,
) -> Responses:
    """``pooled activation - pooled activation on uniform grey`` of every channel.

    Pooled is the middle half of the map's rows and columns, which the image's edge reaches least:
    its mean (which averages over phases), its maximum (which forgives a small shift), or the unit
    in the centre.

    Raises:
        UnknownNameError, UnsupportedModelError, ShapeError: as `layer_shapes`.
    """
    device = next(module.parameters(), torch.empty(0)).device
    size = stimuli.images.shape[-1]
    grey = uniform(size).to(device)
    layer_shapes(module, [layer], image_input(grey))
    found: list[Tensor] = []
    with torch.no_grad():
        for part in (grey, *stimuli.images.split(_BATCH)):
            maps = feature_maps(module, [layer], image_input(part.to(device)))[layer]
            found.append(_pooled(maps, pooling).cpu())
    resting = found[0][0]
    change = torch.cat(found[1:]) - resting
    # What rounding leaves of an image that differs in nothing is no response.
    change = change.where(change.abs() > 1e-5 * resting.abs(), 0.0)
    values = change.T.reshape(len(resting), *stimuli.shape)
    return Responses(layer=layer, values=values, axes=stimuli.axes, resting=resting)


def _pooled(maps: Tensor, pooling: Pooling) -> Tensor:
    rows, columns = maps.shape[2:]
    if pooling == "centre":
        return maps[:, :, rows // 2, columns // 2]
    middle = maps[:, :, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return middle.mean((2, 3)) if pooling == "mean" else middle.amax((2, 3))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tuning:
    """How each channel's response depends on one property. Silent channels have NaN."""

    axis: StimulusAxis
    curves: Float[Tensor, "channel value"]
    selectivity: Float[Tensor, " channel"]
    """From 0, no preference, to 1, one value only."""
    preferred: Float[Tensor, " channel"]
    """With a period, the resultant's angle in the axis's units; without, the best value."""
    bandwidth: Float[Tensor, " channel"]
    """Half the width of the curve at half its height, in the axis's units; NaN if it never falls to
    half, or without a period."""
    expected: Float[Tensor, " channel"]
    """Mean selectivity under shuffled stimuli: a unit that fires at a single stimulus, whatever it
    is, looks selective. NaN if nothing repeats or nothing was shuffled."""
    p_value: Float[Tensor, " channel"]
    """Share of shuffles of the stimuli with at least this selectivity; NaN if nothing repeats."""


def tuning(
    found: Responses,
    axis: str,
    *,
    best: Sequence[str] = (),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Tuning:
    """Tuning curves along one axis.

    Other axes are averaged over, those named in `best` fixed at the value where the channel's mean
    response has its largest peak. The p-value is against stimuli shuffled along the axis, anew in
    every repetition (the axes averaged over): as if preferences were not consistent.

    Raises:
        UnknownNameError: if there is no such axis.
        ValueRangeError: if the axis has fewer than 3 values, or is also in `best`.
    """
    names = [each.name for each in found.axes]
    for name in (axis, *best):
        if name not in names:
            raise UnknownNameError("An axis of the stimuli", name, names)
    along = found.axes[names.index(axis)]
    if axis in best or len(along.values) < 3:
        raise ValueRangeError(
            f"A tuning curve must have 3 or more values, at the best of other axes; got "
            f"{len(along.values)} of {axis!r} at the best {list(best)}. Choose another axis."
        )
    kept = [names.index(axis), *(names.index(name) for name in best)]
    rest = [index for index in range(len(names)) if index not in kept]
    order = [0, *(1 + index for index in (*kept, *rest))]
    values = found.values.permute(order)
    repeats = math.prod(len(found.axes[index].values) for index in rest)
    values = values.reshape(len(values), len(along.values), -1, repeats)
    curves = _at_best(values)
    selected = selectivity(curves, along)
    p_value, expected = _shuffled(values, along, selected, permutations, seed)
    return Tuning(
        axis=along,
        curves=curves,
        selectivity=selected,
        preferred=_preferred(curves, along),
        bandwidth=_bandwidth(curves, along),
        expected=expected,
        p_value=p_value,
    )


def selectivity(
    curves: Float[Tensor, "channel value"], axis: StimulusAxis
) -> Float[Tensor, " channel"]:
    """The resultant's length over the sum of magnitudes; without a period, as above."""
    if axis.period is None:
        high, low = curves.amax(1), curves.amin(1)
        return (high - low) / (high.abs() + low.abs())
    return _resultant(curves, axis).abs() / curves.abs().sum(1)


def _resultant(curves: Tensor, axis: StimulusAxis) -> Tensor:
    assert axis.period is not None
    turns = 2 * math.pi / axis.period * torch.tensor(axis.values)
    return (curves * torch.polar(torch.ones_like(turns), turns)).sum(1)


def _at_best(values: Tensor) -> Tensor:
    """From [channel, value, option, repeat]: the mean over repeats at the best option."""
    mean = values.mean(3)
    chosen = mean.amax(1).argmax(1)
    return mean.gather(2, chosen[:, None, None].expand(-1, mean.shape[1], 1)).squeeze(2)


def _preferred(curves: Tensor, axis: StimulusAxis) -> Tensor:
    silent = (curves == 0).all(1)
    if axis.period is None:
        found = torch.tensor(axis.values)[curves.argmax(1)]
    else:
        found = _resultant(curves, axis).angle() % (2 * math.pi) * axis.period / (2 * math.pi)
    return found.masked_fill(silent, torch.nan)


def _bandwidth(curves: Tensor, axis: StimulusAxis) -> Tensor:
    """Both flanks from the peak, interpolated between values; their mean."""
    if axis.period is None:
        return torch.full((len(curves),), torch.nan)
    step = axis.period / len(axis.values)
    peaks = curves.argmax(1)
    count = curves.shape[1]
    widths: list[float] = []
    for curve, peak in zip(curves.tolist(), peaks.tolist(), strict=True):
        flanks = [
            _fall([curve[(peak + sign * k) % count] for k in range(count)]) for sign in (1, -1)
        ]
        widths.append(sum(flanks) / 2 * step)
    return torch.tensor(widths)


def _fall(flank: list[float]) -> float:
    """Steps until a curve that starts at its peak is down to half."""
    if flank[0] <= 0:
        return math.nan
    half = flank[0] / 2
    for step in range(1, len(flank)):
        before, here = flank[step - 1], flank[step]
        if here <= half < before:
            return step - 1 + (before - half) / (before - here)
    return math.nan


def _shuffled(
    values: Tensor, axis: StimulusAxis, own: Tensor, permutations: int, seed: int
) -> tuple[Tensor, Tensor]:
    channels, count, options, repeats = values.shape
    unknown = torch.full((channels,), torch.nan)
    if repeats < 2 or permutations == 0:
        return unknown, unknown
    drawn = derived(seed, "shuffled stimuli", axis.name)
    reached, total = torch.ones(channels), torch.zeros(channels)
    for _ in range(permutations):
        order = torch.rand(count, options, repeats, generator=drawn).argsort(0)
        shuffled = values.gather(1, order.expand(channels, -1, -1, -1))
        found = selectivity(_at_best(shuffled), axis)
        reached += found >= own - 1e-6
        total += found.nan_to_num(0.0)
    silent = own.isnan()
    return (
        (reached / (permutations + 1)).masked_fill(silent, torch.nan),
        (total / permutations).masked_fill(silent, torch.nan),
    )


def rank_p(
    own: Float[Tensor, " channel"], null: Float[Tensor, " other"]
) -> Float[Tensor, " channel"]:
    """``(1 + #{null >= own}) / (1 + n)`` over the null's finite values; 1 where `own` is NaN."""
    finite = null[null.isfinite()]
    above = (finite[None] >= own[:, None]).sum(1)
    return ((1 + above) / (1 + len(finite))).masked_fill(own.isnan(), 1.0)
