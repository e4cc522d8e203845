"""`modelassay convert`: a dictionary from one library's format to another's."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.options import AsJson, Force, Seed, UnusedDevice, say

Written = Literal["saelens", "dictionary_learning", "sparsify", "circuit_tracer", "modelassay"]


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="FORMAT:PATH or FORMAT:ORG/REPO/PATH, the formats being saelens, "
            "dictionary_learning, sparsify, gemma_scope, llama_scope, openai, qwen_scope, "
            "goodfire, circuit_tracer; saelens:RELEASE/ID; or a folder of our own.",
        ),
    ],
    target: Annotated[
        Path | None, typer.Argument(metavar="TO", help="Folder to write.", show_default=False)
    ] = None,
    to: Annotated[
        Written,
        typer.Option(
            "--to", help="Format to write; circuit_tracer is one of cross-layer transcoders."
        ),
    ] = "modelassay",
    cross_layer: Annotated[
        bool,
        typer.Option(
            "--cross-layer",
            help="FROM is a cross-layer transcoder: a folder with the files of all layers, of "
            "circuit_tracer, gemma_scope, llama_scope or our own.",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Name of the model, for formats that say it.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The same as TO, as other commands have it.", show_default=False),
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(
            help="A folder with ORG/REPO/files, used instead of the Hugging Face hub.",
            envvar="MODELASSAY_MIRROR",
            show_default=False,
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Only print the dictionaries that are in FROM.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Convert all dictionaries in FROM, into folders of TO.")
    ] = False,
    as_json: AsJson = False,
    force: Force = False,
    seed: Seed = 0,
    device: UnusedDevice = "cpu",
) -> None:
    """Convert a dictionary to another library's format.

    What is written is read back, and the two reconstruct the same random activations: the largest
    difference is printed. What a format cannot express is refused, never dropped.

    Example: modelassay convert saelens:path/to/folder out --to sparsify; for a cross-layer
    transcoder: modelassay convert --cross-layer circuit_tracer:ORG/REPO out.
    """
    del device
    if listing and every:
        raise typer.BadParameter("must be given without --all.", param_hint="--list")
    if cross_layer and (listing or every):
        raise typer.BadParameter(
            "must be given without --list and --all.", param_hint="--cross-layer"
        )
    if listing:
        _list(source, mirror, as_json=as_json)
        return
    if (target is None) == (out is None):
        raise typer.BadParameter("must be given once, as TO or with --out.", param_hint="TO")
    from modelassay.cli.converting import (
        convert_all,
        convert_cross_layer,
        convert_dictionary,
        described,
    )

    folder = target or out
    assert folder is not None
    if every:
        many = convert_all(
            source, folder, to=to, model=model, force=force, seed=seed, mirror=mirror
        )
        say("\n".join(map(described, many["converted"])), many, as_json=as_json)
        return
    convert_one = convert_cross_layer if cross_layer else convert_dictionary
    one = convert_one(source, folder, to=to, model=model, force=force, seed=seed, mirror=mirror)
    say(described(one), one, as_json=as_json)


def _list(source: str, mirror: Path | None, *, as_json: bool) -> None:
    from modelassay.cli.converting import list_names

    found = list_names(source, mirror=mirror)
    say("\n".join(found["names"]), found, as_json=as_json)
