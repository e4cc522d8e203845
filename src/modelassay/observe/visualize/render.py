"""Feature visualization: images optimised for what they make a model's units do.

Olah, Mordvintsev and Schubert 2017. All images are optimised in one batch, each for its own target
and with its own gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.observe.visualize.algebra import Seen, Target
from modelassay.observe.visualize.feature_maps import feature_maps, layer_shapes
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput, check_images
from modelassay.observe.visualize.redirect import RedirectedRelu
from modelassay.observe.visualize.result import Visualization
from modelassay.observe.visualize.settings import DEFAULT, Settings
from modelassay.observe.visualize.transforms import apply

_OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}


def render(
    module: nn.Module,
    targets: Target | Sequence[Target],
    *,
    settings: Settings = DEFAULT,
    image_input: ImageInput = IMAGENET,
    facets: int = 1,
    between_facets: Target | None = None,
    together: Target | None = None,
    start: Float[Tensor, "image channels h w"] | None = None,
    references: Float[Tensor, "image channels h w"] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Visualization:
    """Optimise images, `facets` of them for each target.

    The model is left as it was found; its weights get no gradients. One seed gives one result, bit
    for bit on one machine. All targets start from the same noise (facets from noises of their own)
    and are transformed alike, so that no image depends on what stands beside it in the batch.

    Args:
        module: a CNN or a vision transformer; its first argument are images.
        targets: what to look for, one image (or several facets) each.
        settings: size, steps, parametrisation, transformations…
        image_input: value range, normalisation and size of what the model reads.
        facets: images of each target.
        between_facets: a term of each target's facets, such as ``-100 * FacetSimilarity(layer)``,
            which makes them differ. It is optimised but is no part of the objective or the trace.
        together: likewise a term of all images at once, such as `Alignment`.
        start: images to begin with, in 0 … 1, in place of noise.
        references: images that targets such as `Likeness` compare with.
        seed: decides the noise and the transformations.
        progress: where to report.

    Raises:
        ValueRangeError: if a target lies outside its layer, or an image outside 0 … 1.
        ShapeError: if images or directions do not fit.
        UnknownNameError: if the model has no such layer.
        UnsupportedModelError: if a layer does not run exactly once.
        NonFiniteError: if a target becomes NaN or infinite.
    """
    targets = (targets,) if isinstance(targets, Target) else tuple(targets)
    if not targets or facets < 1:
        raise ValueRangeError(
            "There must be at least one target and one facet; got "
            f"{len(targets)} targets and {facets} facets. Pass a list of targets."
        )
    device = next(module.parameters(), torch.empty(0)).device
    count = len(targets) * facets
    scene = _Scene(
        module=module, targets=targets, facets=facets, together=together,
        between_facets=between_facets, image_input=image_input,
        references=_fitting(references, count, settings, device, "references"),
    )  # fmt: skip
    scene.check(torch.full((1, 3, *settings.size), 0.5, device=device))
    numbers = _start(settings, facets, len(targets), seed, start, device)
    trace, transparency, redirected = _ascend(scene, numbers, settings, seed, progress)
    with torch.no_grad():
        images = settings.parametrisation.images(numbers, settings.size)
        images = images.mean(1, keepdim=True).expand_as(images) if image_input.grey else images
        objective, _ = scene.values(images, images, scene.references)
    return Visualization(
        images=images.contiguous().cpu(),
        objective=objective.cpu(),
        trace=trace.cpu(),
        transparency=transparency.cpu(),
        targets=targets,
        facets=facets,
        seed=seed,
        settings=settings,
        redirected=redirected,
        provenance=Provenance.collect(
            seed=seed,
            device=str(device),
            model=type(module).__name__,
            layers=", ".join(scene.layers),
        ),
    )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _Scene:
    """Everything that stays the same while images are optimised."""

    module: nn.Module
    targets: tuple[Target, ...]
    facets: int
    between_facets: Target | None
    together: Target | None
    image_input: ImageInput
    references: Tensor | None

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(sorted(frozenset[str]().union(*(target.layers for target in self._all))))

    @property
    def _all(self) -> tuple[Target, ...]:
        shared = (self.between_facets, self.together)
        return (*self.targets, *(target for target in shared if target is not None))

    def check(self, example: Tensor) -> None:
        """Refuse targets that this model does not have."""
        shapes = layer_shapes(self.module, self.layers, self.image_input(example))
        for target in self._all:
            target.check(shapes)

    def values(
        self, images: Tensor, seen: Tensor, references: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Each image's own target, and the sum of the terms that images share."""
        maps = self._maps(seen)
        others: dict[str, Tensor] = {}
        if references is not None:
            with torch.no_grad():
                others = self._maps(references)
        whole = Seen(images=images, maps=maps, references=others)
        parts = _split(whole, self.facets)
        groups = zip(self.targets, parts, strict=True)
        own = torch.cat([target.values(part) for target, part in groups])
        shared: Tensor | float = 0.0
        if self.between_facets is not None:
            for part in parts:
                shared = shared + self.between_facets.values(part).sum()
        if self.together is not None:
            shared = shared + self.together.values(whole).sum()
        return own, shared

    def _maps(self, seen: Tensor) -> dict[str, Tensor]:
        return feature_maps(self.module, self.layers, self.image_input(seen)) if self.layers else {}


def _split(whole: Seen, facets: int) -> list[Seen]:
    """The images of each target by themselves."""
    images = whole.images.split(facets)
    seen = {
        # One split, not many slices: each slice's gradient would be as large as the whole.
        kind: {layer: found.split(len(found) // len(images)) for layer, found in maps.items()}
        for kind, maps in (("maps", whole.maps), ("references", whole.references))
    }
    return [
        Seen(
            images=part,
            maps={layer: parts[index] for layer, parts in seen["maps"].items()},
            references={layer: parts[index] for layer, parts in seen["references"].items()},
        )
        for index, part in enumerate(images)
    ]


def _ascend(
    scene: _Scene, numbers: Tensor, settings: Settings, seed: int, progress: Progress
) -> tuple[Tensor, Tensor, int]:
    """Optimise `numbers` in place: trace, transparency map and number of redirected rectifiers."""
    draws = derived(seed, "transforms")
    optimizer = _OPTIMIZERS[settings.optimizer]([numbers], lr=settings.learning_rate)
    trace: list[Tensor] = []
    transparency = numbers.new_zeros(len(numbers), *settings.size)
    redirected = 0
    with progress.task("optimise images", total=settings.steps, unit="step") as task:
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(step)
            images = settings.parametrisation.images(numbers, settings.size)
            pixels = images.detach().requires_grad_()
            relu = RedirectedRelu()
            if step < settings.redirect_steps:
                with relu:
                    own, shared = _seen_values(scene, pixels, settings, draws, step)
                redirected = max(redirected, relu.count)
            else:
                own, shared = _seen_values(scene, pixels, settings, draws, step)
            # The gradient of a loss: redirected rectifiers ask for its sign.
            (descent,) = torch.autograd.grad(-(own.sum() + shared), pixels)
            _check_finite(own, descent, step)
            (numbers.grad,) = torch.autograd.grad(images, numbers, descent)
            optimizer.step()
            transparency += descent.abs().sum(1)
            trace.append(own.detach())
            task.advance(1, target=float(own.detach().mean()))
    return torch.stack(trace, 1), transparency, redirected


def _seen_values(
    scene: _Scene, pixels: Tensor, settings: Settings, draws: torch.Generator, step: int
) -> tuple[Tensor, Tensor | float]:
    share = step / settings.steps
    state = draws.get_state()
    seen = apply(settings.transforms, pixels, draws, share)
    references = scene.references
    if references is not None:
        # The references are moved just as the images are.
        again = torch.Generator().set_state(state)
        references = apply(settings.transforms, references, again, share)
    return scene.values(pixels, seen, references)


def _start(
    settings: Settings, facets: int, targets: int, seed: int, start: Tensor | None,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """The free numbers at the beginning."""
    given = _fitting(start, targets * facets, settings, device, "start")
    if given is not None:
        numbers = settings.parametrisation.numbers(given)
    else:
        generators = [derived(seed, "start", facet) for facet in range(facets)]
        noise = settings.parametrisation.start(settings.size, generators)
        numbers = noise.repeat(targets, *[1] * (noise.ndim - 1)).to(device)
    return numbers.detach().clone().requires_grad_()


def _fitting(
    images: Tensor | None, count: int, settings: Settings, device: torch.device, what: str
) -> Tensor | None:
    """Given images, checked: one for all, or one for each."""
    if images is None:
        return None
    check_images(images, f"{what} images")
    if images.shape[2:] != settings.size or len(images) not in (1, count):
        raise ShapeError(
            f"{what} must be 1 or {count} images of {list(settings.size)}; got "
            f"{list(images.shape)}. Resize them, or set the size to theirs."
        )
    return images.to(device).expand(count, -1, -1, -1)


def _check_finite(own: Tensor, gradient: Tensor, step: int) -> None:
    if not bool(own.isfinite().all() & gradient.isfinite().all()):
        raise NonFiniteError(
            f"A target and its gradient must be finite; got NaN or Inf at step {step}. "
            "Check image_input and the model's weights."
        )


def measure(
    module: nn.Module,
    targets: Sequence[Target],
    images: Float[Tensor, "image channels h w"],
    *,
    image_input: ImageInput = IMAGENET,
    batch: int = 32,
) -> Float[Tensor, "target image"]:
    """Every target on every one of some images, such as photographs, as they are.

    Targets that compare images with each other or with a reference are refused.

    Raises:
        ShapeError, ValueRangeError: as `render`.
    """
    check_images(images)
    layers = tuple(sorted(frozenset[str]().union(*(target.layers for target in targets))))
    device = next(module.parameters(), torch.empty(0)).device
    shapes = layer_shapes(module, layers, image_input(images[:1].to(device)))
    for target in targets:
        target.check(shapes)
    found: list[Tensor] = []
    with torch.no_grad():
        for part in images.split(batch):
            part = part.to(device)
            maps = feature_maps(module, layers, image_input(part))
            seen = Seen(images=part, maps=maps, references={})
            found.append(torch.stack([target.values(seen) for target in targets]))
    return torch.cat(found, 1).cpu()
