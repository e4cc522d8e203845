"""What `modelassay atlas` does: a model, a folder of images, a page or a picture."""

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from modelassay.cli.atlas_schemas import AtlasResult
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.cli.visualizing import load_image_model
from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.files import write_atomically
from modelassay.core.progress import default_progress
from modelassay.observe.visualize.atlas import (
    SMALL,
    Atlas,
    AtlasOptions,
    activation_atlas,
    named,
)
from modelassay.observe.visualize.class_effects import logits_of
from modelassay.observe.visualize.image_input import ImageInput
from modelassay.observe.visualize.image_set import ImageFolder
from modelassay.observe.visualize.layouts import Layout
from modelassay.observe.visualize.png import to_png
from modelassay.report.atlas import atlas_report
from modelassay.subjects.hooks import Flags

_WORDNET = re.compile(r"^n\d{8}\s+")


def make_atlas(
    source: str, *, layer: str, images: Path, grid: int, layout: Layout, per_image: int,
    least: int, classes: int, class_names: Path | None, image_size: int, size: int, steps: int,
    out: Path, join: Path | None, seed: int, device: str,
) -> AtlasResult:  # fmt: skip
    """Make the atlas and write a page (`.html`) or a picture (`.png`).

    Raises:
        ValueRangeError: if the name of the output ends otherwise.
    """
    if out.suffix not in (".html", ".png"):
        raise ValueRangeError(
            f"An atlas must be written to .html or .png; got {str(out)!r}. Rename --out."
        )
    module, image_input = load_image_model(source)
    module = module.to(device)
    check_join(join, module)
    folder = ImageFolder(images, (image_size, image_size))
    remark = _without_classes(module, image_input, folder, device) if classes else ""
    options = AtlasOptions(
        grid=grid, layout=layout, per_image=per_image, least=least,
        classes=0 if remark else classes,
    )  # fmt: skip
    atlas = activation_atlas(
        module, layer, folder, options=options, image_input=image_input, seed=seed,
        settings=replace(SMALL, size=(size, size), steps=steps), progress=default_progress(),
    )  # fmt: skip
    names = read_class_names(source, module, class_names)
    page = atlas_report(atlas, f"Atlas of {layer} of {Path(source).name}", names)
    if out.suffix == ".html":
        page.write(out, force=True)
    else:
        write_atomically(out, to_png(atlas.picture()))
    join_page(join, page, module, atlas.provenance, command="atlas", out=out)
    return _described(atlas, names, source, remark, out)


def read_class_names(source: str, module: nn.Module, given: Path | None) -> list[str]:
    """Names of the classes: from a file, from the model's configuration, or from beside it."""
    beside = Path(source).expanduser() / "synset_words.txt"
    path = given if given is not None else beside if beside.is_file() else None
    if path is not None:
        lines = path.read_text("utf-8").splitlines()
        # The first of several names says enough.
        return [_WORDNET.sub("", line).split(",")[0].strip() for line in lines if line.strip()]
    known = getattr(getattr(module, "config", None), "id2label", None) or {}
    return [str(known[index]) for index in range(len(known)) if index in known]


@torch.no_grad()
def _without_classes(
    module: nn.Module, image_input: ImageInput, folder: ImageFolder, device: str
) -> str:
    """Why no classes can be named; empty if they can."""
    example = image_input(torch.full((1, 3, *folder.size), 0.5, device=device))
    try:
        with Flags.of(module).evaluating():
            logits_of(module(example))
    except UnsupportedModelError as error:
        return str(error)
    return ""


def _described(atlas: Atlas, names: list[str], source: str, remark: str, out: Path) -> AtlasResult:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": source,
        "layer": atlas.layer,
        "grid": atlas.options.grid,
        "layout": atlas.options.layout,
        "samples": atlas.n_samples,
        "images": atlas.n_images,
        "cells": [
            {
                "row": cell.row,
                "column": cell.column,
                "samples": cell.samples,
                "objective": cell.objective,
                "classes": [
                    {"name": name, "effect": effect}
                    for name, (_, effect) in zip(named(cell, names), cell.classes, strict=True)
                ],
            }
            for cell in atlas.cells
        ],
        "remark": remark,
        "settings": atlas.settings.as_json(),
        "seed": atlas.seed,
        "out": str(out),
    }


def as_text(result: AtlasResult) -> str:
    """The result for a terminal."""
    lines = [
        f"{result['layer']} of {result['model']}: {len(result['cells'])} of {result['grid'] ** 2} "
        f"cells, {result['samples']:,} samples of {result['images']:,} images"
    ]
    for cell in result["cells"]:
        classes = ", ".join(f"{c['name']} {c['effect']:+.3g}" for c in cell["classes"])
        lines.append(
            f"  row {cell['row']:>2} column {cell['column']:>2}  {cell['samples']:>5} samples  "
            f"{classes}"
        )
    if result["remark"]:
        lines.append(f"  no classes are named: {result['remark']}")
    lines.append(f"The atlas is at {result['out']}")
    return "\n".join(lines)
