"""Natural images beside units, cut to what the unit sees: top, by quantile, random, silent.

An optimised image alone misleads, and so do the strongest examples alone (Olah et al. 2017,
Bolukbasi et al. 2021): each part of a unit's range gives examples too, and so do places at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.image_set import ImageSet, batches, check_enough
from modelassay.observe.visualize.receptive_fields import (
    Box,
    Position,
    ReceptiveFields,
    receptive_fields,
)
from modelassay.observe.visualize.unit_maps import Scene, Strongest, UnitReader, strongest_places


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedImages:
    """How many examples of each kind (ours, but for one example an image: Olah et al. 2017)."""

    n_top: int = 8
    n_bands: int = 4
    """Bands of equal size, by rank, of the images on which a unit is active."""
    per_band: int = 2
    n_random: int = 8
    n_silent: int = 4
    per_image: int = 1
    """Of the strongest examples, how many may come from one image."""
    pool: int = 4096
    """Images, drawn at random once for all units, that quantiles and random choices come from; all
    of a smaller set. The strongest examples come from the whole set."""

    def __post_init__(self) -> None:
        if min(self.n_top, self.n_bands, self.per_image, self.pool) < 1 or min(
            self.per_band, self.n_random, self.n_silent
        ) < 0:  # fmt: skip
            raise ValueRangeError(
                "There must be at least 1 strongest example, 1 band, 1 example an image and 1 image"
                f" in the pool; got {self}. Ask for more."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageExample:
    """A place in an image."""

    image: int
    """Number in the set."""
    name: str
    position: Position
    """In the layer."""
    box: Box
    """The receptive field of that position, clipped at the image's borders."""
    value: float
    """The unit's activation there."""
    crop: Float[Tensor, "3 _h _w"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleGroup:
    """Examples that were chosen alike."""

    name: str
    examples: tuple[ImageExample, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitExamples:
    """The examples of one unit; no image gives two, but for `per_image` among the strongest."""

    name: str
    groups: tuple[ExampleGroup, ...]
    """Top, the bands from the strongest to the weakest, random, silent."""
    active_images: int
    """Images with a place where the unit is above 0."""
    n_images: int

    @property
    def note(self) -> str:
        """What must be said beside them; empty if nothing is wrong."""
        if self.active_images == 0:
            return f"Never fires on these {self.n_images:,} images: above 0 nowhere."
        return ""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageExamples:
    """Examples of some units of a layer."""

    layer: str
    units: tuple[UnitExamples, ...]
    fields: ReceptiveFields
    n_images: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Pick:
    unit: int
    group: int
    image: int
    place: int


def find_image_examples(
    module: nn.Module,
    layer: str,
    images: ImageSet,
    *,
    channels: Sequence[int] | None = None,
    directions: Float[Tensor, "unit channel"] | None = None,
    wanted: WantedImages | None = None,
    image_input: ImageInput = IMAGENET,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ImageExamples:
    """Examples of many units in one pass over a set of images, and a second over those shown.

    A unit's value on an image is its largest over positions; it is active where that is above 0.
    The groups, which choose in this order, never twice from one image:

    - top: the largest values, of active images;
    - bands: the pool's active images, ranked and cut into `n_bands` bands of equal size; random
      images of each, at their largest value;
    - random: random images at random positions, whatever the unit does there;
    - silent: random images on which the unit is above 0 nowhere, at random positions.

    Args:
        module: any module that takes images.
        layer: path of a module, as in `feature_maps`.
        images: a folder (`ImageFolder`) or any other `ImageSet`.
        channels: numbers; None for all.
        directions: in the layer's space of channels, instead of channels.
        wanted: how many of each kind.
        image_input: what the model wants its images to look like.
        seed: decides the pool and what is drawn at random.
        progress: where to report.

    Raises:
        ValueRangeError: if there is no such channel.
        TooFewTokensError: if there are no images.
        UnknownNameError: if there is no such layer.
        NonFiniteError: if an activation is NaN or infinite.
    """
    wanted = wanted or WantedImages()
    check_enough(images, 1, "A set of images")
    scene = Scene(module=module, layer=layer, images=images, image_input=image_input)
    width, rows, columns = scene.shape()
    reader = UnitReader.of(width, channels, directions, layer)
    order = torch.randperm(len(images), generator=derived(seed, "pool"))
    found = strongest_places(
        scene, reader, count=wanted.n_top, pool=sorted(order[: wanted.pool].tolist()),
        per_image=wanted.per_image, progress=progress,
    )  # fmt: skip
    fields = receptive_fields(module, layer, images.size, image_input=image_input)
    picks = [
        pick
        for unit, name in enumerate(reader.names)
        for pick in _picks(found, unit, wanted, rows * columns, derived(seed, "examples", name))
    ]
    shown = _shown(scene, reader, picks, fields)
    names = _group_names(wanted)
    units = tuple(
        UnitExamples(
            name=name,
            groups=tuple(
                ExampleGroup(name=title, examples=tuple(shown.get((unit, group), ())))
                for group, title in enumerate(names)
            ),
            active_images=int(found.active[unit]),
            n_images=len(images),
        )
        for unit, name in enumerate(reader.names)
    )
    return ImageExamples(layer=layer, units=units, fields=fields, n_images=len(images), seed=seed)


def _group_names(wanted: WantedImages) -> list[str]:
    edges = [round(100 * band / wanted.n_bands) for band in range(wanted.n_bands + 1)]
    bands = [f"{low}–{high} %" for low, high in pairwise(edges)]
    return ["top", *bands, "random", "silent"]


def _picks(
    found: Strongest, unit: int, wanted: WantedImages, n_places: int, draws: torch.Generator
) -> list[_Pick]:
    """The examples of one unit, in the order of the groups."""
    picks = [
        _Pick(unit, 0, int(image), int(place))
        for value, image, place in zip(
            found.values[unit], found.images[unit], found.places[unit], strict=True
        )
        if value > 0
    ]
    used = {pick.image for pick in picks}
    values, places = found.pool_values[:, unit], found.pool_places[:, unit]

    def take(members: Tensor, group: int, count: int, *, anywhere: bool = False) -> None:
        shuffled = members[torch.randperm(len(members), generator=draws)].tolist()
        spots = torch.randint(n_places, (len(shuffled),), generator=draws).tolist()
        left = [(m, s) for m, s in zip(shuffled, spots, strict=True)
                if int(found.pool[m]) not in used]  # fmt: skip
        for member, spot in left[:count]:
            place = spot if anywhere else int(places[member])
            used.add(int(found.pool[member]))
            picks.append(_Pick(unit, group, int(found.pool[member]), place))

    ranked = values.argsort(descending=True, stable=True)
    ranked = ranked[values[ranked] > 0]
    for band, members in enumerate(ranked.tensor_split(wanted.n_bands), start=1):
        take(members, band, wanted.per_band)
    take(torch.arange(len(values)), wanted.n_bands + 1, wanted.n_random, anywhere=True)
    take((values <= 0).nonzero()[:, 0], wanted.n_bands + 2, wanted.n_silent, anywhere=True)
    return picks


def _shown(
    scene: Scene, reader: UnitReader, picks: list[_Pick], fields: ReceptiveFields
) -> dict[tuple[int, int], list[ImageExample]]:
    """The picks of each unit and group with their crops and activations."""
    of_image: dict[int, list[int]] = {}
    for index, pick in enumerate(picks):
        of_image.setdefault(pick.image, []).append(index)
    made: dict[int, ImageExample] = {}
    for numbers, images in batches(scene.images, sorted(of_image), scene.batch):
        values = reader(scene.maps(images)).flatten(2).cpu()
        for which, number in enumerate(numbers):
            for index in of_image[number]:
                pick = picks[index]
                position = divmod(pick.place, fields.shape[1])
                made[index] = ImageExample(
                    image=number, name=scene.images.name(number), position=position,
                    box=fields.box(position), value=float(values[which, pick.unit, pick.place]),
                    crop=fields.box(position).crop(images[which]).clone(),
                )  # fmt: skip
    shown: dict[tuple[int, int], list[ImageExample]] = {}
    for index, pick in enumerate(picks):
        shown.setdefault((pick.unit, pick.group), []).append(made[index])
    return shown
