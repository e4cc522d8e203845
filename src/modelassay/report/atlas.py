"""The page of an activation atlas."""

from collections.abc import Sequence

from modelassay.observe.visualize.atlas import Atlas, AtlasCell, named
from modelassay.observe.visualize.png import to_png
from modelassay.report.axes import number
from modelassay.report.parts import Definition, Definitions, Page, Paragraph, Section
from modelassay.report.picture_parts import Picture, PictureWall
from modelassay.report.report import Report

_INTRODUCTION = (
    "Activations of the layer at random places of many images, laid out so that what is alike lies "
    "near each other. Each tile is optimised for the mean activation of one cell of the map: it "
    "shows what drives the layer that way, not what the images look like. Rest the pointer on a "
    "tile, or reach it with the tabulator, for its samples and classes."
)
_LAYOUTS = {
    "pca": "the two directions of largest variance, each divided by its deviation: distances "
    "between tiles mean something, but what differs in other directions lies in one tile",
    "umap": "UMAP by cosine (20 neighbours): what is near is alike, distances mean little",
}
_WIDTH = 1100  # of the page's column, in pixels


def atlas_page(atlas: Atlas, title: str, class_names: Sequence[str] = ()) -> Page:
    """The page of an atlas; classes without a name are numbers."""
    options = atlas.options
    tiles = tuple(_tile(cell, class_names) for cell in atlas.pictures())
    empty = tiles.count(None)
    caption = (
        f"{len(atlas.cells)} of {len(tiles)} cells have at least {options.least} samples; the other"
        f" {empty} are left empty. {atlas.n_samples:,} samples from {atlas.n_images:,} images."
    )
    wall = PictureWall(
        title="", pictures=tiles, caption=caption, columns=options.grid,
        width=min(128, _WIDTH // options.grid),
    )  # fmt: skip
    versions, created = atlas.provenance.versions, atlas.provenance.created
    return Page(
        title=title,
        subtitle=f"{len(atlas.cells)} cells from {atlas.n_images:,} images",
        sections=(
            Section(anchor="map", title="Map", parts=(Paragraph(text=_INTRODUCTION), wall)),
            Section(anchor="methods", title="Methods", parts=(_methods(atlas),)),
        ),
        footer=f"modelassay {versions.get('modelassay', '')} · seed {atlas.seed} · {created}",
    )


def atlas_report(atlas: Atlas, title: str, class_names: Sequence[str] = ()) -> Report:
    """The report of an atlas."""
    return Report(atlas_page(atlas, title, class_names))


def _tile(cell: AtlasCell | None, class_names: Sequence[str]) -> Picture | None:
    if cell is None:
        return None
    classes = [
        f"{name} +{number(effect)}"
        for name, (_, effect) in zip(named(cell, class_names), cell.classes, strict=True)
    ]
    title = named(cell, class_names)[0] if cell.classes else f"cell {cell.row}, {cell.column}"
    lines = (
        *((f"raises {', '.join(classes)}",) if classes else ()),
        f"{cell.samples} samples · row {cell.row}, column {cell.column}",
    )
    return Picture(title=title, png=to_png(cell.picture), lines=lines)


def _methods(atlas: Atlas) -> Definitions:
    options, settings = atlas.options, atlas.settings
    entries = [
        Definition(term="layer", text=atlas.layer),
        Definition(term="layout", text=_LAYOUTS[options.layout]),
        Definition(
            term="samples",
            text=f"{options.per_image} random positions of each image, borders included",
        ),
        Definition(
            term="target",
            text="projection on the cell's mean activation, divided by the samples' second moments "
            f"(ridge {options.ridge:g}), times max(0.1, cosine) to the power "
            f"{options.cosine_power:g}",
        ),
        Definition(
            term="pictures",
            text=f"{settings.size[0]} × {settings.size[1]} pixels, {settings.steps} steps",
        ),
    ]
    if options.classes:
        entries.append(
            Definition(
                term="classes",
                text="activation times the gradient of each logit, averaged over up to 8 samples "
                "of the cell, less its mean over classes: a first-order effect at these places, "
                "not what the model answers to the picture",
            )
        )
    return Definitions(title="How it was made", entries=tuple(entries))
