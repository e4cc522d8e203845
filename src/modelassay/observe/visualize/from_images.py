"""Optimisation that begins with, or looks at, given images: accentuation and caricature."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError
from modelassay.observe.visualize.algebra import Target
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput, check_images
from modelassay.observe.visualize.regularisers import Distance
from modelassay.observe.visualize.render import measure, render
from modelassay.observe.visualize.result import Visualization
from modelassay.observe.visualize.settings import DEFAULT, Settings
from modelassay.observe.visualize.targets import Likeness

_PULL = 1.0  # weight of the distance in Horama's accentuation


def accentuate(
    module: nn.Module,
    targets: Sequence[Target],
    images: Float[Tensor, "image channels h w"],
    *,
    pull: float = _PULL,
    settings: Settings = DEFAULT,
    **options: Any,
) -> Visualization:
    """Change given images so that they show more of a target, and stay near themselves.

    Ascends ``target / max(|target on the original|, 1) - pull * mean (image - original)²``: in
    units of what the original has, so that `pull` means the same for every unit (ours). That is
    also what the result's `objective` holds; `measure` gives the target alone.

    Args:
        module: the model.
        targets: one for each image.
        images: in 0 … 1; their size replaces the settings'.
        pull: how strongly an image is held to its original.
        settings: those of `render`.
        options: others of `render`.

    Raises:
        ShapeError: if there is not one target for each image.
        UnsupportedModelError: if the parametrisation cannot begin with an image.
    """
    check_images(images)
    if len(targets) != len(images):
        raise ShapeError(
            f"There must be one target for each image; got {len(targets)} targets for "
            f"{len(images)} images. Repeat the one or the other."
        )
    sized = replace(settings, size=(images.shape[2], images.shape[3]))
    image_input: ImageInput = options.get("image_input", IMAGENET)
    before = measure(module, targets, images, image_input=image_input).diagonal().abs()
    held = [
        (1 / max(float(unit), 1.0)) * target - pull * Distance(image)
        for target, image, unit in zip(targets, images, before, strict=True)
    ]
    return render(module, held, settings=sized, start=images, **options)


def caricature(
    module: nn.Module,
    layer: str,
    images: Float[Tensor, "image channels h w"],
    *,
    cosine_power: float = 1.0,
    settings: Settings = DEFAULT,
    **options: Any,
) -> Visualization:
    """What a layer makes of images, exaggerated: an image each, from noise, that is like it there.

    Args:
        module: the model.
        layer: where they are compared.
        images: in 0 … 1; their size replaces the settings'.
        cosine_power: how much it matters that little else is active.
        settings: those of `render`.
        options: others of `render`.

    Raises:
        ShapeError, ValueRangeError: as `render`.
    """
    check_images(images)
    sized = replace(settings, size=(images.shape[2], images.shape[3]))
    targets = [Likeness(layer, cosine_power)] * len(images)
    return render(module, targets, settings=sized, references=images, **options)
