"""`modelassay architectures`: what can be fitted, and whether an architecture is sound."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelassay.cli.options import AsJson, Force, Seed, UnusedDevice, UnusedSeed, examples, say

architectures = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What can be fitted, and whether an architecture is sound.",
    epilog=examples(
        "modelassay architectures list", "modelassay architectures check my_architecture.py"
    ),
)

OutFile = Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.")]


@architectures.command("list", epilog=examples("modelassay architectures list --json"))
def list_architectures(
    as_json: AsJson = False,
    out: OutFile = None,
    force: Force = False,
    seed: UnusedSeed = 0,
    device: UnusedDevice = "cpu",
) -> None:
    """List the library's recipes with what each keeps, and their papers."""
    del seed, device
    from modelassay.cli.architecture_results import as_text, listed

    result = listed()
    _keep(result, out, force=force)
    say(as_text(result), result, as_json=as_json)


@architectures.command(
    epilog=examples(
        "modelassay architectures check my_architecture.py",
        "modelassay architectures check Gated --width 128",
    )
)
def check(
    what: Annotated[
        str, typer.Argument(help="A recipe's name, or a Python file with your own. It is run.")
    ],
    width: Annotated[int, typer.Option(help="Latents; 32 features are planted.", min=8)] = 64,
    k: Annotated[int, typer.Option(help="Active latents a token, where that is set.", min=1)] = 4,
    as_json: AsJson = False,
    out: OutFile = None,
    force: Force = False,
    seed: Seed = 0,
    device: UnusedDevice = "cpu",
) -> None:
    """Hold an architecture against the conformance suite.

    Are codes a token's own, the same in training as at inference, exports exact, all terms of the
    loss taught by, stopped runs taken up bit for bit? Fails (exit code 1) if a check does.
    """
    del device
    from modelassay.cli.architecture_results import checked, verdicts

    result = checked(what, width=width, k=k, seed=seed)
    _keep(result, out, force=force)
    say(verdicts(result), result, as_json=as_json)
    if not result["passed"]:
        raise typer.Exit(1)


def _keep(result: Any, out: Path | None, *, force: bool) -> None:
    """Write a result to a file, if one is named."""
    if out is None:
        return
    from modelassay.cli.output import refuse_existing
    from modelassay.core.files import write_json

    refuse_existing(out, force=force)
    write_json(out, result)
