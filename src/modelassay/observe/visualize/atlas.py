"""Activation atlas: everything that a layer sees in many images, as one map of pictures.

Carter, Armstrong, Schubert, Johnson and Olah 2019. Activations at random positions are laid out in
two dimensions; those in one cell of a grid are averaged, and the average is turned into a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.observe.visualize.class_effects import class_effects
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.image_set import ImageSet, batches, check_enough
from modelassay.observe.visualize.layouts import Layout, cells_of, lay_out
from modelassay.observe.visualize.render import render
from modelassay.observe.visualize.settings import DEFAULT, Settings
from modelassay.observe.visualize.targets import Direction
from modelassay.observe.visualize.unit_maps import Scene

SMALL = replace(DEFAULT, size=(64, 64), steps=128)
"""A picture of an atlas: small and quick, as there are many (ours)."""
_AT_ONCE = 48  # cells rendered in one batch (ours)
_EFFECT_SAMPLES = 8  # of a cell, whose effects on classes are averaged (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasOptions:
    """How an atlas is made."""

    grid: int = 12
    """Cells on each side."""
    per_image: int = 8
    """Random positions of each image (Carter et al. take 1 of a million images)."""
    least: int = 5
    """Samples that a cell must have to be shown (ours)."""
    layout: Layout = "pca"
    cosine_power: float = 4.0
    """Of the target (lucid's notebook on the atlas)."""
    ridge: float = 0.1
    """Directions are divided by the samples' second moments, plus this share of their mean (the
    division is lucid's, the share ours); infinity: not divided."""
    classes: int = 2
    """Classes named for each cell; 0: none."""

    def __post_init__(self) -> None:
        if min(self.grid, self.per_image, self.least) < 1 or self.classes < 0 or self.ridge <= 0:
            raise ValueRangeError(
                "grid, per_image and least must be at least 1, classes at least 0 and ridge above "
                f"0; got {self}. Pass larger numbers."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasSamples:
    """Activations at random positions of a set of images."""

    activations: Float[Tensor, "sample channel"]
    images: Int[Tensor, " sample"]
    positions: Int[Tensor, "sample 2"]
    """Row and column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasCell:
    """A cell that has samples enough."""

    row: int
    column: int
    samples: int
    picture: Float[Tensor, "3 _h _w"]
    objective: float
    """The target on the picture as it is."""
    classes: tuple[tuple[int, float], ...]
    """The classes that the cell's samples raise most, and by how much: the mean effect on the
    logit, less its mean over classes."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Atlas:
    """A map of what a layer sees."""

    layer: str
    options: AtlasOptions
    cells: tuple[AtlasCell, ...]
    """By rows; cells with too few samples are left out."""
    n_samples: int
    n_images: int
    settings: Settings
    seed: int
    provenance: Provenance

    def pictures(self) -> list[AtlasCell | None]:
        """All places of the grid by rows; None where too few samples are."""
        by_place = {(cell.row, cell.column): cell for cell in self.cells}
        side = range(self.options.grid)
        return [by_place.get((row, column)) for row in side for column in side]

    def picture(self) -> Float[Tensor, "3 height width"]:
        """The whole map without gaps; white where it is empty."""
        white = torch.ones(3, *self.settings.size)
        tiles = [white if cell is None else cell.picture for cell in self.pictures()]
        grid = self.options.grid
        rows = [torch.cat(tiles[r * grid : (r + 1) * grid], dim=2) for r in range(grid)]
        return torch.cat(rows, dim=1)


def activation_atlas(
    module: nn.Module,
    layer: str,
    images: ImageSet,
    *,
    options: AtlasOptions | None = None,
    settings: Settings = SMALL,
    image_input: ImageInput = IMAGENET,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Atlas:
    """Make an activation atlas.

    A cell's picture maximises the mean over positions of ``(x · v) max(0.1, cos(x, v))^p`` with
    ``v = (S + λ tr(S)/d)⁻¹ m``, where m is the cell's mean activation and S the samples' second
    moments. Which pictures exist follows from the images: what no image shows has no cell.

    Args:
        module: the model.
        layer: path of a module, as in `feature_maps`.
        images: a folder (`ImageFolder`) or any other `ImageSet`.
        options: grid, layout, samples…
        settings: how the pictures are optimised.
        image_input: what the model wants its images to look like.
        seed: decides the positions, the layout of UMAP and the pictures' noise.
        progress: where to report.

    Raises:
        TooFewTokensError: if there are too few images, or no cell has samples enough.
        MissingExtraError: for the layout umap, if umap-learn is not installed.
        UnsupportedModelError: if classes are asked for and the model has no logits.
        UnknownNameError: if there is no such layer.
    """
    options = options or AtlasOptions()
    check_enough(images, 1, "A set of images")
    scene = Scene(module=module, layer=layer, images=images, image_input=image_input)
    samples = sample_activations(scene, options.per_image, seed=seed, progress=progress)
    points = lay_out(samples.activations, options.layout, seed)
    cells = cells_of(points, options.grid)
    counts = cells.bincount(minlength=options.grid**2)
    shown = (counts >= options.least).nonzero()[:, 0]
    if not len(shown):
        raise TooFewTokensError(
            f"Some cell must have at least {options.least} samples; got at most "
            f"{int(counts.max())}. Add images, take more positions of each, or a coarser grid."
        )
    means = torch.stack([samples.activations[cells == cell].mean(0) for cell in shown])
    classes: list[tuple[tuple[int, float], ...]] = [()] * len(shown)
    if options.classes:
        effects = cell_effects(
            scene, samples, cells, len(counts), seed=seed, progress=progress
        )[shown]  # fmt: skip
        classes = [_strongest(row, options.classes) for row in effects]
    vectors = whitened(means, samples.activations, options.ridge)
    targets = [Direction(layer, v, options.cosine_power, label="cell") for v in vectors]
    made: list[AtlasCell] = []
    for begin in range(0, len(targets), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        rendered = render(
            module, targets[part], settings=settings, image_input=image_input, seed=seed,
            progress=progress,
        )  # fmt: skip
        for index, cell in enumerate(shown[part].tolist()):
            row, column = divmod(cell, options.grid)
            made.append(AtlasCell(
                row=row, column=column, samples=int(counts[cell]), picture=rendered.images[index],
                objective=float(rendered.objective[index]), classes=classes[begin + index],
            ))  # fmt: skip
    return Atlas(
        layer=layer, options=options, cells=tuple(made), n_samples=len(points),
        n_images=len(images), settings=settings, seed=seed,
        provenance=Provenance.collect(
            seed=seed, device=str(scene.device), model=type(module).__name__, layer=layer
        ),
    )  # fmt: skip


def sample_activations(
    scene: Scene, per_image: int, *, seed: int = 0, progress: Progress = SILENT
) -> AtlasSamples:
    """Activations at random positions, all different, of every image of a set."""
    found: list[Tensor] = []
    spots: list[Tensor] = []
    owners: list[int] = []
    _, rows, columns = scene.shape()
    with progress.task("sample activations", total=len(scene.images), unit="image") as task:
        for numbers, images in batches(scene.images, range(len(scene.images)), scene.batch):
            maps = scene.maps(images).flatten(2).cpu()
            for which, number in enumerate(numbers):
                draws = derived(seed, "positions", number)
                places = torch.randperm(rows * columns, generator=draws)[:per_image]
                found.append(maps[which][:, places].T)
                spots.append(torch.stack([places // columns, places % columns], dim=1))
                owners += [number] * len(places)
            task.advance(len(numbers))
    return AtlasSamples(
        activations=torch.cat(found), images=torch.tensor(owners), positions=torch.cat(spots)
    )


def whitened(
    means: Float[Tensor, "cell channel"], samples: Float[Tensor, "sample channel"], ridge: float
) -> Float[Tensor, "cell channel"]:
    """Means divided by the samples' second moments, so that what all cells share counts less."""
    if ridge == float("inf"):
        return means
    x = samples.double()
    moments = x.T @ x / len(x)
    moments += ridge * moments.trace() / len(moments) * torch.eye(len(moments), dtype=x.dtype)
    found = torch.linalg.solve(moments, means.double().T).T
    # Their length has no meaning; the means' keeps the target's scale.
    return (found / found.norm(dim=1, keepdim=True) * means.norm(dim=1, keepdim=True)).float()


def cell_effects(
    scene: Scene, samples: AtlasSamples, cells: Int[Tensor, " sample"], n_cells: int, *,
    per_cell: int = _EFFECT_SAMPLES, seed: int = 0, progress: Progress = SILENT,
) -> Float[Tensor, "cell class"]:  # fmt: skip
    """The mean effect on the logits of random samples of each cell; 0 for an empty one.

    Raises:
        UnsupportedModelError: as `class_effects`.
    """
    total: Tensor | None = None
    order = torch.randperm(len(cells), generator=derived(seed, "effects"))
    of_cell = [order[cells[order] == cell][:per_cell] for cell in range(n_cells)]
    # In the order of the images, so that those of one batch share theirs.
    chosen = torch.cat(of_cell).sort().values
    with progress.task("effects on classes", total=len(chosen), unit="sample") as task:
        for part in chosen.split(scene.batch):
            numbers = samples.images[part].tolist()
            images = {n: image for ns, xs in batches(scene.images, sorted(set(numbers)), 1)
                      for n, image in zip(ns, xs, strict=True)}  # fmt: skip
            inputs = torch.stack([images[number] for number in numbers]).to(scene.device)
            positions = [(row, column) for row, column in samples.positions[part].tolist()]
            effects = class_effects(
                scene.module, scene.layer, scene.image_input(inputs), positions
            ).cpu()
            if total is None:
                total = torch.zeros(n_cells, effects.shape[1])
            total.index_add_(0, cells[part], effects)
            task.advance(len(part))
    assert total is not None
    return total / cells[chosen].bincount(minlength=n_cells).clamp_min(1)[:, None]


def _strongest(effects: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    values, classes = (effects - effects.mean()).topk(min(count, len(effects)))
    return tuple(zip(classes.tolist(), values.tolist(), strict=True))


def named(cell: AtlasCell, names: Sequence[str] = ()) -> list[str]:
    """A cell's classes in words: by name where names are given, else by number."""
    return [names[c] if c < len(names) else f"class {c}" for c, _ in cell.classes]
