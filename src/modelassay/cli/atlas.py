"""`modelassay atlas`: what a layer of a vision model sees in a folder of images, as one map."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import AsJson, Device, Force, Seed, say


def atlas(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder of SqueezeNet 1.0, a Hugging Face image classifier, or "
            "`file.py:function` that returns a module. The file is run."
        ),
    ],
    layer: Annotated[str, typer.Option(help="Path of the module whose output is mapped.")],
    images: Annotated[
        Path, typer.Option(help="A folder of images (JPEG or PNG), with all folders below it.")
    ],
    grid: Annotated[int, typer.Option(help="Cells on each side of the map.", min=1)] = 12,
    layout: Annotated[
        Literal["pca", "umap"],
        typer.Option(help="How activations are laid out; umap needs the extra `atlas`."),
    ] = "pca",
    per_image: Annotated[
        int, typer.Option(help="Random positions sampled of each image.", min=1)
    ] = 8,
    least: Annotated[
        int, typer.Option(help="Samples a cell must have; others stay empty.", min=1)
    ] = 5,
    classes: Annotated[
        int, typer.Option(help="Classes named for each cell, where the model has logits.", min=0)
    ] = 2,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file with a class on each line, in the order of the logits; a leading "
            "WordNet id is left out. By default what the model says, or synset_words.txt beside it."
        ),
    ] = None,
    image_size: Annotated[
        int, typer.Option(help="Side that images are resized and cut to, in pixels.", min=2)
    ] = 128,
    size: Annotated[int, typer.Option(help="Side of each tile in pixels.", min=2)] = 64,
    steps: Annotated[int, typer.Option(help="Steps of the optimiser.", min=1)] = 128,
    out: Annotated[Path, typer.Option(help="A page (.html) or a picture (.png).")] = Path(
        "out/atlas.html"
    ),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Map what a layer of a vision model sees: an activation atlas.

    Activations at random places of the images are laid out in two dimensions; the mean of each
    cell of a grid is turned into a picture, and said which classes it raises."""
    from modelassay.cli.atlas_making import as_text, make_atlas
    from modelassay.cli.output import refuse_existing

    refuse_existing(out, force=force)
    result = make_atlas(
        model,
        layer=layer,
        images=images,
        grid=grid,
        layout=layout,
        per_image=per_image,
        least=least,
        classes=classes,
        class_names=class_names,
        image_size=image_size,
        size=size,
        steps=steps,
        out=out,
        join=join,
        seed=seed,
        device=device,
    )
    say(as_text(result), result, as_json=as_json)
