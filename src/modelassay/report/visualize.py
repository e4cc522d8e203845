"""The page of optimised images, each beside what one needs to judge it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.visualize.controls import Controls
from modelassay.observe.visualize.image_examples import ExampleGroup, ImageExamples, UnitExamples
from modelassay.observe.visualize.png import to_png
from modelassay.observe.visualize.result import Visualization
from modelassay.report.axes import number
from modelassay.report.parts import Definition, Definitions, Page, Paragraph, Part, Section
from modelassay.report.picture_parts import (
    Picture,
    PictureWall,
    Thumbnail,
    ThumbnailRow,
)
from modelassay.report.report import Report

_THUMBNAIL = 64  # pixels

_INTRODUCTION = (
    "Each image was optimised for a unit to respond to it as strongly as possible. It shows what "
    "drives the unit, not what the unit responds to in photographs, and not that the model learned "
    "it: such images exist for every unit of every network. Compare with the controls."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Optimised images and what stands beside them."""

    title: str
    optimised: Visualization
    natural: Float[Tensor, " image"] | None = None
    """Each image's target on the natural image that has most of it."""
    n_natural: int = 0
    """Natural images that were looked through."""
    controls: Controls | None = None
    examples: ImageExamples | None = None
    """Of each target's channel, in the order of the targets: parts of natural images."""


def gallery_page(gallery: Gallery) -> Page:
    """The page of a gallery."""
    optimised = gallery.optimised
    sections = [
        Section(
            anchor="images",
            title="Images",
            parts=(Paragraph(text=_INTRODUCTION), _wall(gallery)),
        )
    ]
    if gallery.controls is not None:
        sections.append(Section(anchor="controls", title="Controls", parts=_controls(gallery)))
    sections.append(Section(anchor="methods", title="Methods", parts=(_methods(optimised),)))
    versions, created = optimised.provenance.versions, optimised.provenance.created
    return Page(
        title=gallery.title,
        subtitle=f"{len(optimised.images)} optimised images, {optimised.settings.steps} steps each",
        sections=tuple(sections),
        footer=f"modelassay {versions.get('modelassay', '')} · seed {optimised.seed} · {created}",
    )


def gallery_report(gallery: Gallery) -> Report:
    """The report of a gallery."""
    return Report(gallery_page(gallery))


def pictures(
    visualization: Visualization,
    extra: Sequence[tuple[str, ...]] = (),
    examples: ImageExamples | None = None,
) -> tuple[Picture, ...]:
    """The images with their measurements; `extra` are further lines for each.

    Examples of a target stand beside the first of its facets.
    """
    found: list[Picture] = []
    for index, name in enumerate(visualization.names):
        more = extra[index] if extra else ()
        unit = None
        if examples is not None and index % visualization.facets == 0:
            unit = examples.units[index // visualization.facets]
        value = f"clean image: {number(float(visualization.objective[index]))}"
        found.append(
            Picture(
                title=name,
                png=to_png(visualization.images[index]),
                lines=(value, *more),
                warning=" ".join((*visualization.notes(index), unit.note if unit else "")).strip(),
                rows=_rows(unit) if unit else (),
            )
        )
    return tuple(found)


def _wall(gallery: Gallery) -> Part:
    optimised, natural = gallery.optimised, gallery.natural
    extra = [] if natural is None else [(f"natural: {number(float(v))}",) for v in natural]
    caption = "clean image: the unit's mean activation on the image as it is, untransformed."
    if natural is not None:
        caption += f" natural: the highest among {gallery.n_natural:,} natural images."
    if gallery.examples is not None:
        caption += _caption(gallery.examples)
    shown = pictures(optimised, extra, gallery.examples)
    return PictureWall(title="", pictures=shown, caption=caption)


def _caption(examples: ImageExamples) -> str:
    height, width = examples.fields.largest
    return (
        " Beside it: what the unit sees of natural images, with its activation there. strongest: "
        "one place an image. by rank: images on which the unit is active anywhere, ranked by its "
        "largest value and cut into equal bands; random images of each band, from the strongest to "
        "the weakest. random: any place of any image. silent: images on which it is above 0 "
        f"nowhere. A unit of this layer sees up to {height} × {width} pixels; less at the borders."
    )


def _rows(unit: UnitExamples) -> tuple[ThumbnailRow, ...]:
    """Strongest, by rank, random and silent, each a row of what the unit saw."""
    top, *bands, random, silent = unit.groups
    ranked = ExampleGroup(name="", examples=tuple(e for band in bands for e in band.examples))
    hints = [f"{band.name} by rank, " for band in bands for _ in band.examples]
    return (
        _row("strongest", top),
        _row("by rank", ranked, hints),
        _row("random", random),
        _row("silent", silent, empty="active somewhere in every image that was looked at"),
    )


def _row(
    label: str, group: ExampleGroup, hints: Sequence[str] = (), empty: str = "none"
) -> ThumbnailRow:
    thumbnails = tuple(
        Thumbnail(
            png=to_png(_small(example.crop)),
            text=number(example.value),
            hint=f"{hints[index] if hints else ''}{example.name} at {example.position}",
        )
        for index, example in enumerate(group.examples)
    )
    return ThumbnailRow(label=label, thumbnails=thumbnails, empty=empty)


def _small(crop: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 _h _w"]:
    """A crop with sides of at most `_THUMBNAIL` pixels: a page holds hundreds."""
    side = max(crop.shape[1:])
    if side <= _THUMBNAIL:
        return crop
    size = [max(1, round(s * _THUMBNAIL / side)) for s in crop.shape[1:]]
    return F.interpolate(crop[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _controls(gallery: Gallery) -> tuple[Part, ...]:
    assert gallery.controls is not None
    untrained, random = gallery.controls.untrained, gallery.controls.random_direction
    walls: list[Part] = [
        PictureWall(
            title="An untrained network",
            pictures=pictures(untrained),
            caption="The same units, settings and seed in a network of this architecture with "
            "weights drawn at random. Its activations have another scale: compare the pictures.",
        )
    ]
    if random is not None:
        walls.append(
            PictureWall(
                title="Random directions",
                pictures=pictures(random),
                caption="Directions of unit length drawn at random in the same layer of the model.",
            )
        )
    return tuple(walls)


def _methods(optimised: Visualization) -> Part:
    settings = optimised.settings.as_json()
    entries = [
        Definition(term=name.replace("_", " "), text=_words(value))
        for name, value in settings.items()
    ]
    redirected = (
        f"{optimised.redirected} rectifiers in the first {settings['redirect_steps']} steps"
    )
    if optimised.redirected == 0:
        redirected = "no rectifier was found, so that no gradient was redirected"
    entries.append(Definition(term="redirected gradients", text=redirected))
    return Definitions(title="Settings", entries=tuple(entries))


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
