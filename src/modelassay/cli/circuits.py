"""`modelassay circuits`: weights between units, tuning to stimuli, units in two networks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import AsJson, Device, Force, Seed, examples, say

ImageModelName = Annotated[
    str,
    typer.Argument(
        help="A folder of SqueezeNet 1.0, a Hugging Face image classifier, or "
        "`file.py:function` that returns a module. The file is run."
    ),
]
Layer = Annotated[str, typer.Option(help="Path of the module whose output is looked at.")]

circuits = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Circuits of convolutional networks: what units are made of, and what they respond to.",
    epilog=examples(
        "modelassay circuits weights ./squeezenet1_0 --layer features.3 --channels 12,40",
        "modelassay circuits tuning ./squeezenet1_0 --layer features.1",
    ),
)


@circuits.command(
    epilog=examples(
        "modelassay circuits weights ./squeezenet1_0 --layer features.0 --channels 0:16",
        "modelassay circuits weights ./squeezenet1_0 --from features.3 --layer features.5 \\",
        "    --channels 12 --images photographs/ --icons optimised",
    )
)
def weights(
    model: ImageModelName,
    layer: Layer,
    source: Annotated[
        str, typer.Option("--from", help="Path of the earlier module, or `input`.")
    ] = "input",
    channels: Annotated[str, typer.Option(help="0:16, or 3,7,12, or all.")] = "0:8",
    inputs: Annotated[
        int, typer.Option(help="Inputs drawn: this many that excite, and that inhibit.", min=1)
    ] = 5,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of photographs (JPEG or PNG): inputs are then sorted by weight times "
            "activity, and the weights are compared with what the network does."
        ),
    ] = None,
    icons: Annotated[
        Literal["weights", "optimised"],
        typer.Option(help="Pictures of units: weights expanded to pixels, or optimised images."),
    ] = "weights",
    out: Annotated[Path, typer.Option(help="The page (.html).")] = Path("out/circuit.html"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Show the weights into units of a layer, from an earlier layer or the input.

    Through more than one layer the weights are those of the network without its nonlinearities."""
    from modelassay.cli.circuits_results import show_weights, weights_text
    from modelassay.cli.output import refuse_existing

    refuse_existing(out, force=force)
    result = show_weights(
        model,
        layer=layer,
        source=source,
        channels=channels,
        count=inputs,
        images=images,
        icons=icons,
        out=out,
        join=join,
        seed=seed,
        device=device,
    )
    say(weights_text(result), result, as_json=as_json)


@circuits.command(
    epilog=examples(
        "modelassay circuits tuning ./squeezenet1_0 --layer features.1",
        "modelassay circuits tuning my_model.py:build --layer layer1 --families curve --json",
    )
)
def tuning(
    model: ImageModelName,
    layer: Layer,
    families: Annotated[
        str, typer.Option(help="orientation, curve, high-low, colour: one, several, or all.")
    ] = "all",
    twins: Annotated[
        int, typer.Option(help="Networks with shuffled weights to compare with.", min=1)
    ] = 8,
    size: Annotated[int, typer.Option(help="Side of the stimuli in pixels.", min=32)] = 96,
    out: Annotated[Path, typer.Option(help="The page (.html).")] = Path("out/tuning.html"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Look for detectors of orientation, curves, texture boundaries and colour contrasts.

    Synthetic stimuli; every family beside its controls and beside shuffled networks."""
    from modelassay.cli.circuits_results import measure_tuning, tuning_text
    from modelassay.cli.output import refuse_existing

    refuse_existing(out, force=force)
    result = measure_tuning(
        model,
        layer=layer,
        families=families,
        twins=twins,
        size=size,
        out=out,
        join=join,
        seed=seed,
        device=device,
    )
    say(tuning_text(result), result, as_json=as_json)


@circuits.command(
    epilog=examples(
        "modelassay circuits universality ./first ./second --layer features.5 \\",
        "    --images photographs/",
    )
)
def universality(
    model: ImageModelName,
    against: Annotated[str, typer.Argument(help="The other model, named in the same way.")],
    layer: Layer,
    images: Annotated[Path, typer.Option(help="A folder of images (JPEG or PNG).")],
    other_layer: Annotated[
        str | None, typer.Option(help="The other model's layer; by default the same.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=8)] = 128,
    out: Annotated[Path, typer.Option(help="The page (.html).")] = Path("out/universality.html"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Match the units of two networks by their responses to the same images."""
    from modelassay.cli.circuits_results import match_models, universality_text
    from modelassay.cli.output import refuse_existing

    refuse_existing(out, force=force)
    result = match_models(
        model,
        against,
        layer=layer,
        other_layer=other_layer or layer,
        images=images,
        size=size,
        out=out,
        join=join,
        seed=seed,
        device=device,
    )
    say(universality_text(result), result, as_json=as_json)
