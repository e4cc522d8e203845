"""Units of a layer over a set of images: one pass, in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import NonFiniteError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.observe.visualize.feature_maps import feature_maps, layer_shapes
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.image_set import ImageSet, batches

_BATCH = 32  # images at once (ours)


@final
@dataclass(frozen=True, eq=False, slots=True)
class UnitReader:
    """Units of a layer: channels, or directions in the space of channels."""

    vectors: Float[Tensor, "unit channel"]
    names: tuple[str, ...]
    chosen: tuple[int, ...] = ()
    """Numbers of channels, where the units are nothing else: read without a product."""

    @staticmethod
    def of(
        width: int, channels: Sequence[int] | None, directions: Tensor | None, layer: str
    ) -> "UnitReader":
        """Channels by number (None: all), or directions; never both.

        Raises:
            ValueRangeError: if there is no such channel, or both are given.
            ShapeError: if the directions have another width.
        """
        if directions is not None:
            if channels is not None or directions.ndim != 2 or directions.shape[1] != width:
                raise ValueRangeError(
                    f"Units must be channels, or directions of shape [unit, {width}]; got "
                    f"{list(directions.shape)} and channels {channels}. Pass one of the two."
                )
            return UnitReader(directions, tuple(f"direction {i}" for i in range(len(directions))))
        numbers = tuple(range(width)) if channels is None else tuple(channels)
        odd = [number for number in numbers if not 0 <= number < width]
        if odd or not numbers:
            raise ValueRangeError(
                f"A channel of {layer!r} must be in 0 … {width - 1}; got {odd or 'none'}. "
                "Choose another."
            )
        names = tuple(f"channel {number}" for number in numbers)
        return UnitReader(torch.eye(width)[list(numbers)], names, numbers)

    def __len__(self) -> int:
        return len(self.names)

    def __call__(
        self, maps: Float[Tensor, "n channel row column"]
    ) -> Float[Tensor, "n unit row column"]:
        """Values of the units everywhere."""
        if self.chosen:
            return maps[:, list(self.chosen)]
        return torch.einsum("uc,nchw->nuhw", self.vectors.to(maps), maps)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Scene:
    """A model, a layer in it and a set of images: what is looked at."""

    module: nn.Module
    layer: str
    images: ImageSet
    image_input: ImageInput = IMAGENET
    batch: int = _BATCH
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        device = next(self.module.parameters(), torch.empty(0)).device
        object.__setattr__(self, "device", device)

    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the layer on such images.

        Raises:
            UnknownNameError, UnsupportedModelError, ShapeError: as `layer_shapes`.
        """
        example = torch.full((1, 3, *self.images.size), 0.5, device=self.device)
        return layer_shapes(self.module, [self.layer], self.image_input(example))[self.layer]

    @torch.no_grad()
    def maps(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n channel row column"]:
        """The layer on some images.

        Raises:
            NonFiniteError: if something is NaN or infinite.
        """
        inputs = self.image_input(images.to(self.device))
        found = feature_maps(self.module, [self.layer], inputs)[self.layer]
        if not bool(found.isfinite().all()):
            raise NonFiniteError(
                f"Activations must be finite; got NaN or Inf at {self.layer!r}. Check image_input "
                "and the model's weights."
            )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Strongest:
    """What one pass over a set found about some units."""

    values: Float[Tensor, "unit place"]
    """Descending."""
    images: Int[Tensor, "unit place"]
    places: Int[Tensor, "unit place"]
    """Row times columns plus column."""
    active: Int[Tensor, " unit"]
    """Images with a value above 0."""
    pool: Int[Tensor, " member"]
    """Images whose maxima were kept."""
    pool_values: Float[Tensor, "member unit"]
    pool_places: Int[Tensor, "member unit"]


def strongest_places(
    scene: Scene, reader: UnitReader, *, count: int, pool: Sequence[int] = (), per_image: int = 1,
    progress: Progress = SILENT,
) -> Strongest:  # fmt: skip
    """Each unit's largest values over a set of images, in one pass and bounded memory.

    Args:
        scene: the model and the images.
        reader: the units.
        count: largest values of each, from all images.
        pool: images whose maxima are kept for all units.
        per_image: places of one image that may be among the largest.
        progress: where to report.
    """
    units, members = len(reader), set(pool)
    best = [torch.empty(units, 0), torch.empty(units, 0).long(), torch.empty(units, 0).long()]
    active = torch.zeros(units, dtype=torch.long)
    kept: list[tuple[Tensor, Tensor]] = []
    with progress.task("look at images", total=len(scene.images), unit="image") as task:
        for numbers, images in batches(scene.images, range(len(scene.images)), scene.batch):
            flat = reader(scene.maps(images)).flatten(2)
            values, places = (x.cpu() for x in flat.topk(min(per_image, flat.shape[2]), dim=2))
            active += (values[:, :, 0] > 0).sum(0)
            kept += [
                (values[i, :, 0], places[i, :, 0]) for i, n in enumerate(numbers) if n in members
            ]
            owners = torch.tensor(numbers)[:, None, None].expand_as(places)
            new = [x.transpose(0, 1).flatten(1) for x in (values, owners, places)]
            joined = [torch.cat([old, x], dim=1) for old, x in zip(best, new, strict=True)]
            # Stable, so that of equals the first image wins, whatever the batches.
            order = joined[0].argsort(dim=1, descending=True, stable=True)[:, :count]
            best = [x.gather(1, order) for x in joined]
            task.advance(len(numbers))
    return Strongest(
        values=best[0], images=best[1], places=best[2], active=active,
        pool=torch.tensor(sorted(members), dtype=torch.long),
        pool_values=torch.stack([v for v, _ in kept]) if kept else torch.empty(0, units),
        pool_places=torch.stack([p for _, p in kept]) if kept else torch.empty(0, units).long(),
    )  # fmt: skip
