"""`modelassay visualize`: images that drive a unit of a vision model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import AsJson, Device, Force, Seed, say


def visualize(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder of SqueezeNet 1.0, a Hugging Face image classifier, or "
            "`file.py:function` that returns a module. The file is run."
        ),
    ],
    layer: Annotated[str, typer.Option(help="Path of the module whose output is looked at.")],
    channels: Annotated[str, typer.Option(help="0:16, or 3,7,12, or all.")] = "0:16",
    kind: Annotated[
        Literal["channel", "neuron", "layer"],
        typer.Option(help="A channel everywhere, in the middle only, or all channels (DeepDream)."),
    ] = "channel",
    facets: Annotated[int, typer.Option(help="Different images of each target.", min=1)] = 1,
    settings: Annotated[
        Literal["default", "lucid", "maco"], typer.Option(help="How to optimise.")
    ] = "default",
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.", min=2)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser.", min=1)] = None,
    controls: Annotated[
        bool,
        typer.Option(help="For a page: also an untrained network and random directions."),
    ] = True,
    natural: Annotated[
        Path | None,
        typer.Option(
            help="A folder of photographs (JPEG or PNG) to compare with: the most of each target "
            "that any of them has, and parts of them that the channel responds to, by rank, and at "
            "random."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="A page (.html), a sheet (.png), or a folder of tensors.")
    ] = Path("out/gallery.html"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Make images that drive units of a vision model as strongly as possible.

    One image a channel, all in one batch; beside them what an untrained network and random
    directions give."""
    from modelassay.cli.output import refuse_existing
    from modelassay.cli.visualizing import as_text, visualize_model

    refuse_existing(out, force=force)
    result = visualize_model(
        model,
        layer=layer,
        channels=channels,
        kind=kind,
        facets=facets,
        settings=settings,
        size=size,
        steps=steps,
        with_controls=controls,
        natural=natural,
        out=out,
        join=join,
        seed=seed,
        device=device,
    )
    say(as_text(result), result, as_json=as_json)
