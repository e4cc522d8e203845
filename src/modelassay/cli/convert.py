"""`modelassay convert`: a dictionary from one library's format to another's."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.options import AsJson, Force, Seed, UnusedDevice, say

Written = Literal["saelens", "dictionary_learning", "sparsify", "modelassay"]


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="FORMAT:PATH, the formats being saelens, dictionary_learning, sparsify, "
            "gemma_scope, llama_scope, openai, qwen_scope, goodfire, circuit_tracer; or a folder "
            "of our own.",
        ),
    ],
    target: Annotated[
        Path | None, typer.Argument(metavar="TO", help="Folder to write.", show_default=False)
    ] = None,
    to: Annotated[Written, typer.Option("--to", help="Format to write.")] = "modelassay",
    model: Annotated[
        str | None,
        typer.Option(help="Name of the model, for formats that say it.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The same as TO, as other commands have it.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    seed: Seed = 0,
    device: UnusedDevice = "cpu",
) -> None:
    """Convert a dictionary to another library's format.

    What is written is read back, and the two reconstruct the same random activations: the largest
    difference is printed. What a format cannot express is refused, never dropped.
    """
    del device
    if (target is None) == (out is None):
        raise typer.BadParameter("must be given once, as TO or with --out.", param_hint="TO")
    from modelassay.cli.converting import convert_dictionary

    folder = target or out
    assert folder is not None
    result = convert_dictionary(source, folder, to=to, model=model, force=force, seed=seed)
    place = f" of {result['reads']}" if result["reads"] else ""
    text = (
        f"{result['name']}{place} is at {folder}, as {to}.\n"
        f"Read back, its reconstructions differ by at most {result['difference']:.2g} of their "
        "largest entry."
    )
    say(text, result, as_json=as_json)
