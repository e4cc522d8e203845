"""Control images: what the same optimisation makes of a network that has learned nothing.

A maximising image exists for every unit and every direction of every network. Only what the
controls lack was learned.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import UnsupportedModelError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.visualize.algebra import Target
from modelassay.observe.visualize.feature_maps import layer_shapes
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.render import render
from modelassay.observe.visualize.result import Visualization
from modelassay.observe.visualize.settings import DEFAULT, Settings
from modelassay.observe.visualize.targets import Direction
from modelassay.subjects.load import load_subject
from modelassay.subjects.null_twins import null_twin


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """Images for what nothing was learned about."""

    untrained: Visualization
    """The same targets in a network of the same architecture, initialised at random."""
    random_direction: Visualization | None
    """Random directions in the targets' layer; None if they look at several layers."""


def controls(
    module: nn.Module,
    targets: tuple[Target, ...],
    *,
    settings: Settings = DEFAULT,
    image_input: ImageInput = IMAGENET,
    n_directions: int = 1,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Controls:
    """Render the targets in an untrained twin, and random directions in the model itself.

    A random direction is normal with unit length; it takes the place of a unit's one-hot vector.

    Args:
        module: the model; it is left alone.
        targets: the targets whose images the controls stand beside.
        settings: those of the images.
        image_input: that of the images.
        n_directions: random directions.
        seed: decides the twin's weights, the directions, and what `render` draws.
        progress: where to report.

    Raises:
        UnsupportedModelError: if the model has no parameters to draw anew.
    """
    twin = untrained_twin(module, seed)
    untrained = render(
        twin, targets, settings=settings, image_input=image_input, seed=seed, progress=progress
    )
    layers = sorted(frozenset[str]().union(*(target.layers for target in targets)))
    if len(layers) != 1:
        return Controls(untrained=untrained, random_direction=None)
    device = next(module.parameters()).device
    example = torch.full((1, 3, *settings.size), 0.5, device=device)
    width = layer_shapes(module, layers, image_input(example))[layers[0]][0]
    directions = tuple(
        Direction(layers[0], random_vector(width, derived(seed, "direction", index)),
                  label=f"random direction {index}")
        for index in range(n_directions)
    )  # fmt: skip
    rendered = render(
        module, directions, settings=settings, image_input=image_input, seed=seed, progress=progress
    )
    return Controls(untrained=untrained, random_direction=rendered)


def untrained_twin(module: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are drawn as the architecture draws them before training.

    Raises:
        UnsupportedModelError: if there are no parameters.
    """
    if next(module.parameters(), None) is None:
        raise UnsupportedModelError(
            "A model must have parameters to have an untrained twin; got none. "
            "Leave the controls out."
        )
    subject = load_subject(module, roles=False)
    twin = null_twin(
        subject, "reinitialised", keep_embeddings=False, generator=derived(seed, "untrained")
    )
    return twin.module.requires_grad_(False)


def random_vector(width: int, generator: torch.Generator) -> Float[Tensor, " width"]:
    """A direction of unit length, every one equally likely."""
    vector = torch.randn(width, generator=generator)
    return vector / vector.norm()
