"""How many different things a unit responds to, by the clusters of its strongest examples.

A unit is called polysemantic when the places that drive it most fall apart into groups that the
network itself holds apart: by another layer's activations there, or by what drives the unit there.
One unit's strongest examples are never one point, so clusters count only beyond a null of the same
second moments, and the index stands beside that of random directions of the same layer.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import UnsupportedModelError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.visualize.facets import LEAST, Facets, find_facets
from modelassay.observe.visualize.feature_maps import layer_port
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.image_set import ImageSet, batches, check_enough
from modelassay.observe.visualize.receptive_fields import ReceptiveFields, receptive_fields
from modelassay.observe.visualize.unit_maps import Scene, UnitReader, strongest_places
from modelassay.subjects.hooks import Flags, Stop, visiting

N_EXAMPLES = 40
"""Strongest examples of each unit, one an image (ours)."""
N_RANDOM = 12
"""Random directions that units stand beside (ours)."""
Kind = Literal["activations", "attributions"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Polysemanticity:
    """What one unit's strongest examples fall apart into."""

    name: str
    facets: Facets | None
    """None for a unit that is active on too few images."""
    examples: int
    images: tuple[int, ...]
    """Numbers of the images, in the order of the facets' labels."""
    above_random: float
    """Share of the random directions whose index is lower; NaN without facets."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PolysemanticityResult:
    """Units of a layer, and random directions of it."""

    layer: str
    other: str
    kind: Kind
    units: tuple[Polysemanticity, ...]
    random: Float[Tensor, " direction"]
    """Indices of random directions."""
    n_images: int
    seed: int


def polysemanticity(
    module: nn.Module,
    layer: str,
    other: str,
    images: ImageSet,
    *,
    kind: Kind = "activations",
    channels: Sequence[int] | None = None,
    directions: Float[Tensor, "unit channel"] | None = None,
    n_examples: int = N_EXAMPLES,
    n_random: int = N_RANDOM,
    image_input: ImageInput = IMAGENET,
    seed: int = 0,
    progress: Progress = SILENT,
) -> PolysemanticityResult:
    """Cluster the strongest examples of units by what another layer makes of them.

    Each example is a place of an image, and becomes a vector of unit length over the channels of
    `other`: "activations" are its mean over the positions whose centres lie in the unit's receptive
    field there; "attributions" are activation times the unit's gradient, summed over positions.

    A random direction is ``g / deviation``, channel by channel, with g normal: an even mixture of
    all channels, which a polysemantic unit need not reach.

    Args:
        module: any module that takes images.
        layer: where the units are.
        other: another layer; for attributions one before `layer`.
        images: many more than `n_examples`, or the strongest examples are just any.
        kind: what examples are compared by.
        channels: numbers; None for all, unless directions are given.
        directions: in the layer's space of channels, instead of channels.
        n_examples: strongest examples of each, from different images.
        n_random: random directions to compare with.
        image_input: what the model wants its images to look like.
        seed: decides the random directions and the null.
        progress: where to report.

    Raises:
        TooFewTokensError: if there are fewer than 12 images.
        UnsupportedModelError: for attributions, if `layer` does not depend on `other`.
        UnknownNameError, ValueRangeError: if there is no such layer or channel.
    """
    check_enough(images, LEAST, "Images that units are compared over")
    scene = Scene(module=module, layer=layer, images=images, image_input=image_input)
    reader = UnitReader.of(scene.shape()[0], channels, directions, layer)
    noise = torch.randn(n_random, reader.vectors.shape[1], generator=derived(seed, "random"))
    deviation = channel_deviations(scene)
    random = torch.where(deviation > 0, noise / deviation.clamp_min(1e-12), torch.tensor(0.0))
    both = UnitReader(
        torch.cat([reader.vectors, random]),
        (*reader.names, *(f"random direction {index}" for index in range(n_random))),
    )
    found = strongest_places(scene, both, count=n_examples, progress=progress)
    compared = _Compared.of(scene, other, kind, both)
    made: list[Polysemanticity] = []
    with progress.task("look for facets", total=len(both), unit="unit") as task:
        for unit, name in enumerate(both.names):
            active = found.values[unit] > 0
            owners = found.images[unit][active].tolist()
            facets = None
            if len(owners) >= LEAST:
                points = compared.points(unit, owners, found.places[unit][active].tolist())
                facets = find_facets(points, seed)
            made.append(
                Polysemanticity(
                    name=name,
                    facets=facets,
                    examples=len(owners),
                    images=tuple(owners),
                    above_random=float("nan"),
                )
            )
            task.advance(1)
    indices = torch.tensor([u.facets.index for u in made[len(reader) :] if u.facets is not None])
    units = tuple(_placed(unit, indices) for unit in made[: len(reader)])
    return PolysemanticityResult(
        layer=layer, other=other, kind=kind, units=units, random=indices, n_images=len(images),
        seed=seed,
    )  # fmt: skip


def channel_deviations(scene: Scene) -> Float[Tensor, " channel"]:
    """Each channel's deviation over images and positions."""
    first = second = torch.zeros(())
    count = 0
    for _, images in batches(scene.images, range(len(scene.images)), scene.batch):
        maps = scene.maps(images).double().cpu()
        first, second = first + maps.sum((0, 2, 3)), second + maps.square().sum((0, 2, 3))
        count += maps.shape[0] * maps.shape[2] * maps.shape[3]
    return (second / count - (first / count).square()).clamp_min(0).sqrt().float()


def _placed(unit: Polysemanticity, random: Tensor) -> Polysemanticity:
    if unit.facets is None or not len(random):
        return unit
    lower = float((random < unit.facets.index).double().mean())
    return Polysemanticity(
        name=unit.name, facets=unit.facets, examples=unit.examples, images=unit.images,
        above_random=lower,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Compared:
    """What examples are compared by."""

    scene: Scene
    other: str
    kind: Kind
    reader: UnitReader
    inside: Tensor
    """[place, other's place]: which positions of `other` a position of the layer looks at."""

    @staticmethod
    def of(scene: Scene, other: str, kind: Kind, reader: UnitReader) -> "_Compared":
        size, image_input = scene.images.size, scene.image_input
        inside = torch.empty(0, 0)
        if kind == "activations":
            fields, others = (
                receptive_fields(scene.module, layer, size, image_input=image_input)
                for layer in (scene.layer, other)
            )
            inside = _inside(fields, others)
        return _Compared(scene=scene, other=other, kind=kind, reader=reader, inside=inside)

    def points(self, unit: int, owners: list[int], places: list[int]) -> Tensor:
        """One row of unit length for each example."""
        rows: list[Tensor] = []
        for begin in range(0, len(owners), self.scene.batch):
            part = slice(begin, begin + self.scene.batch)
            images = torch.stack([self.scene.images.image(number) for number in owners[part]])
            inputs = self.scene.image_input(images.to(self.scene.device))
            at, value = self._forward(inputs, unit, places[part])
            if self.kind == "attributions":
                rows.append(_attributed(at, value, self.other, self.scene.layer))
            else:
                weights = self.inside[places[part]].to(at)
                means = torch.einsum("ncp,np->nc", at.detach().flatten(2), weights)
                rows.append(means / weights.sum(1, keepdim=True))
        return F.normalize(torch.cat(rows).cpu(), dim=1)

    def _forward(self, inputs: Tensor, unit: int, places: list[int]) -> tuple[Tensor, Tensor]:
        """The other layer's activations, and the sum of the unit's values at the places."""
        seen: dict[str, Tensor] = {}

        def watch(value: Tensor) -> Tensor:
            seen["other"] = value.detach().requires_grad_()
            # A copy goes on: a rectifier may work in place.
            return seen["other"].clone()

        def read(value: Tensor) -> Tensor:
            seen["layer"] = value.clone()
            if "other" in seen:
                raise Stop
            return value

        parts = dict(self.scene.module.named_modules(remove_duplicate=False))
        visitors = [
            (layer_port(parts, self.other), watch), (layer_port(parts, self.scene.layer), read),
        ]  # fmt: skip
        with (
            torch.enable_grad(), Flags.of(self.scene.module).evaluating(),
            visiting(parts, visitors), suppress(Stop),
        ):  # fmt: skip
            self.scene.module(inputs)
        for name, layer in (("other", self.other), ("layer", self.scene.layer)):
            if name not in seen or seen[name].ndim != 4:
                raise UnsupportedModelError(
                    "A layer that is compared by must run and give [n, channel, row, column]; got "
                    f"{layer!r}, which does not. Name another layer."
                )
        vector = self.reader.vectors[unit].to(seen["layer"])
        values = torch.einsum("c,nchw->nhw", vector, seen["layer"]).flatten(1)
        return seen["other"], values.gather(
            1, torch.tensor(places)[:, None].to(values.device)
        ).sum()


def _attributed(at: Tensor, value: Tensor, other: str, layer: str) -> Tensor:
    """Activation times gradient, summed over positions."""
    gradient: Tensor | None = None
    if value.requires_grad:
        found: Any = torch.autograd.grad(value, at, allow_unused=True)
        gradient = found[0]
    if gradient is None:
        raise UnsupportedModelError(
            f"The units' layer must depend on the layer that they are attributed to; got {layer!r} "
            f"and {other!r}. Name a layer before it."
        )
    return (at.detach() * gradient).sum((2, 3))


def _inside(fields: ReceptiveFields, others: ReceptiveFields) -> Float[Tensor, "place other"]:
    """1 where the centre of another layer's position lies in a position's box; else the nearest."""

    def centres(found: ReceptiveFields) -> Tensor:
        rows, columns = found.shape
        every = [found.centre((row, column)) for row in range(rows) for column in range(columns)]
        return torch.tensor(every)

    middle, own = centres(others), centres(fields)
    top, left, bottom, right = fields.boxes.flatten(0, 1).T[..., None]
    y, x = middle.T
    inside = ((y >= top) & (y <= bottom) & (x >= left) & (x <= right)).float()
    nearest = F.one_hot(torch.cdist(own, middle).argmin(1), len(middle)).float()
    return torch.maximum(inside, nearest)
