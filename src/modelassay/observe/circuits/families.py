"""Whether channels are what they are called: detectors of orientation, curves, textures, colour.

A channel belongs to a family only if it responds to the family's stimulus at least twice as much
as to the strongest of the stimuli that share everything else with it (an index of 1/3), and more
so than the channels of twins do: the same network with the entries of each weight tensor shuffled,
which keeps their sizes and their sparsity. What is best is chosen on one half of the repetitions
and measured on the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.circuits.tuning import rank_p, responses, tuning
from modelassay.observe.contrast_statistics import adjusted
from modelassay.observe.stimuli import (
    colour_contrasts,
    curves,
    edges,
    gratings,
    high_low_boundaries,
)
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.subjects.load import load_subject
from modelassay.subjects.null_twins import null_twin

LEAST_INDEX = 1 / 3
"""Twice the response to the strongest control (ours)."""
LEAST_RESPONSE = 0.1
"""Of the layer's 95th percentile; weaker channels are not judged (ours)."""
LARGEST_Q = 0.05
"""False discovery rate over the channels of a layer, against the twins'."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measured:
    """One network's channels on the stimuli of a family.

    Channels have NaN if they are silent or hardly respond (less than a tenth of the layer's 95th
    percentile): the few stimuli that just pass a threshold make such a unit look selective.
    """

    index: Float[Tensor, " channel"]
    """``(own - control) / (own + control + mean |response|)``, responses below grey counted as 0
    but in the mean, which is over all of the family's stimuli: a response that is small against
    what stimuli do otherwise is no detection (ours). For orientation the
    selectivity index, less what it is for shuffled stimuli."""
    preferred: Float[Tensor, " channel"]
    """Angle in radians: orientation, direction or hue."""
    response: Float[Tensor, " channel"]
    """To the family's own stimulus, less the response to grey."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Family:
    """A family's evidence for all channels of a layer."""

    name: str
    layer: str
    measured: Measured
    null: Float[Tensor, " twin_channel"]
    """The index of all channels of the twins."""
    p_value: Float[Tensor, " channel"]
    q_value: Float[Tensor, " channel"]

    @property
    def members(self) -> tuple[int, ...]:
        """Channels that the evidence supports calling so, the strongest index first."""
        index = self.measured.index.nan_to_num(-1.0)
        found = (index >= LEAST_INDEX) & (self.q_value <= LARGEST_Q)
        order = index.argsort(descending=True, stable=True)
        return tuple(order[found[order]].tolist())

    @property
    def null_share(self) -> float:
        """Share of the twins' channels whose index reaches what members need."""
        return float((self.null >= LEAST_INDEX).float().mean())


Measure = Callable[[nn.Module, str, int, ImageInput, int], Measured]
"""Model, layer, size in pixels, image input, seed."""


def orientation(
    module: nn.Module, layer: str, size: int, image_input: ImageInput, seed: int
) -> Measured:
    """Gratings: selectivity beyond that of shuffled ones, over all phases and frequencies."""
    found = responses(module, layer, gratings(size), image_input=image_input)
    tuned = tuning(found, "orientation", permutations=50, seed=seed)
    return _strong(
        tuned.selectivity - tuned.expected, tuned.preferred, found.values.flatten(1).amax(1)
    )


def curve(module: nn.Module, layer: str, size: int, image_input: ImageInput, seed: int) -> Measured:
    """Arcs against straight contours and arcs bent the other way, of the same contrast."""
    del seed
    stimuli = curves(size)
    found = responses(module, layer, stimuli, pooling="max", image_input=image_input).values
    direction, radius = stimuli.axes[:2]
    chosen, tested = found[..., ::2].mean(4), found[..., 1::2].mean(4)
    bent = [index for index, value in enumerate(radius.values) if not math.isinf(value)]
    straight = [index for index in range(len(radius.values)) if index not in bent]
    # Bent the other way with the same side bright: the direction and, of boundaries, the kind.
    other = tested.roll(-(len(direction.values) // 2), 1)[..., [0, 1, 3, 2]]
    control = torch.maximum(other[:, :, bent], tested[:, :, straight])
    return _indexed(chosen[:, :, bent], tested[:, :, bent], control, direction.values)


def high_low(
    module: nn.Module, layer: str, size: int, image_input: ImageInput, seed: int
) -> Measured:
    """The boundary against either texture alone and against the boundary turned around."""
    stimuli = high_low_boundaries(size, derived(seed, "textures"), samples=8)
    found = responses(module, layer, stimuli, pooling="centre", image_input=image_input).values
    direction = stimuli.axes[0]
    chosen, tested = found[..., ::2].mean(3), found[..., 1::2].mean(3)
    other = tested[:, :, :1].roll(-(len(direction.values) // 2), 1)
    control = torch.cat([other, tested[:, :, 1:]], 2).amax(2, keepdim=True)
    return _indexed(chosen[:, :, :1], tested[:, :, :1], control, direction.values)


def colour(
    module: nn.Module, layer: str, size: int, image_input: ImageInput, seed: int
) -> Measured:
    """Boundaries of hues at equal luma against edges of luminance as far apart in RGB."""
    del seed
    chroma = 0.2
    coloured, grey = (
        colour_contrasts(size, chroma=chroma),
        edges(size, contrast=chroma / 3**0.5 * 2),
    )
    own = responses(module, layer, coloured, pooling="max", image_input=image_input).values
    against = responses(module, layer, grey, pooling="max", image_input=image_input).values
    control = against.flatten(1).amax(1)[:, None, None].expand_as(own)
    return _indexed(own, own, control, coloured.axes[0].values)


FAMILIES: dict[str, Measure] = {
    "orientation": orientation,
    "curve": curve,
    "high-low frequency": high_low,
    "colour contrast": colour,
}


def family(
    module: nn.Module,
    layer: str,
    name: str,
    *,
    size: int = 96,
    n_twins: int = 8,
    image_input: ImageInput = IMAGENET,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Family:
    """Measure one family in a model and in its twins.

    Args:
        module: the model; it is left alone.
        layer: path of the module whose output is looked at.
        name: one of `FAMILIES`.
        size: side of the stimuli in pixels.
        n_twins: shuffled networks to compare with. Few channels of a kind can be told from chance
            only with many.
        image_input: what the model reads.
        seed: decides the twins' weights and what stimuli draw.
        progress: where to report.

    Raises:
        ValueRangeError: without a twin.
        UnknownNameError, UnsupportedModelError, ShapeError: as `responses`.
    """
    if n_twins < 1:
        raise ValueRangeError(
            f"There must be 1 or more twins; got {n_twins}. Without one nothing tells learned "
            "from random."
        )
    measure = FAMILIES[name]
    with progress.task(f"{name} at {layer}", total=1 + n_twins, unit="network") as task:
        own = measure(module, layer, size, image_input, seed)
        task.advance(1)
        null: list[Tensor] = []
        for number in range(n_twins):
            twin = shuffled_twin(module, derived(seed, "twin", number))
            null.append(measure(twin, layer, size, image_input, seed).index)
            task.advance(1)
    found = torch.cat(null)
    p_value = rank_p(own.index, found)
    return Family(
        name=name,
        layer=layer,
        measured=own,
        null=found[found.isfinite()],
        p_value=p_value,
        q_value=_adjusted(p_value, own.index.isfinite()),
    )


def _adjusted(p_value: Tensor, judged: Tensor) -> Tensor:
    """Corrected for the number of channels that respond at all; 1 for the others."""
    found = torch.ones_like(p_value)
    found[judged] = torch.from_numpy(adjusted(p_value[judged].numpy())).to(found.dtype)
    return found


def shuffled_twin(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with the entries of each weight tensor shuffled."""
    subject = load_subject(module, roles=False)
    twin = null_twin(subject, "permuted", keep_embeddings=False, generator=generator)
    return twin.module.requires_grad_(False)


def _indexed(
    chosen: Tensor, tested: Tensor, control: Tensor, angles: tuple[float, ...]
) -> Measured:
    """The index at each channel's best combination; axis 1 holds the angles."""
    best = chosen.flatten(1).argmax(1)
    own, against = (
        x.flatten(1).gather(1, best[:, None])[:, 0].clamp_min(0) for x in (tested, control)
    )
    typical = torch.cat([tested.flatten(1), control.flatten(1)], 1).abs().mean(1)
    options = chosen[0, 0].numel()
    preferred = torch.tensor(angles)[best // options]
    return _strong((own - against) / (own + against + typical), preferred, own)


def _strong(index: Tensor, preferred: Tensor, response: Tensor) -> Measured:
    """Leave out channels that hardly respond."""
    weak = response <= LEAST_RESPONSE * response.quantile(0.95).clamp_min(0)
    return Measured(
        index=index.masked_fill(weak, torch.nan),
        preferred=preferred.masked_fill(weak, torch.nan),
        response=response,
    )
