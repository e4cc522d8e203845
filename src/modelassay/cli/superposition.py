"""`modelassay superposition`: toy models that hold more features than they have dimensions."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import AsJson, Force, Seed, UnusedDevice, UnusedSeed, examples, say

superposition = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Toy models of superposition: the published experiments, drawn and measured.",
    epilog=examples("modelassay superposition list", "modelassay superposition run pentagon"),
)


@superposition.command(name="list", epilog=examples("modelassay superposition list --json"))
def list_experiments(
    as_json: AsJson = False, seed: UnusedSeed = 0, device: UnusedDevice = "cpu"
) -> None:
    """List the experiments, each with its question."""
    from modelassay.cli.schemas import SCHEMA_VERSION
    from modelassay.cli.superposition_schemas import SuperpositionListResult
    from modelassay.observe.superposition.experiments import EXPERIMENTS

    del seed, device
    result: SuperpositionListResult = {
        "schema_version": SCHEMA_VERSION,
        "experiments": [{"name": each.name, "asks": each.asks} for each in EXPERIMENTS.values()],
    }
    lines = [f"{entry['name']:<16}{entry['asks']}" for entry in result["experiments"]]
    say("\n".join(lines), result, as_json=as_json)


@superposition.command(
    name="run",
    epilog=examples(
        "modelassay superposition run pentagon strips",
        "modelassay superposition run --size full --out out/toys",
    ),
)
def run_experiments(
    names: Annotated[
        list[str] | None, typer.Argument(help="Experiments to run; without names, all of them.")
    ] = None,
    size: Annotated[
        Literal["quick", "full"],
        typer.Option(help="Small models briefly trained, or the published sizes and steps."),
    ] = "quick",
    out: Annotated[Path, typer.Option(help="Folder for the page and the tensors.")] = Path(
        "out/superposition"
    ),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: UnusedDevice = "cpu",
    force: Force = False,
) -> None:
    """Train toy models, measure how they pack features, and draw it.

    Writes a page, and a folder of tensors and numbers for every experiment."""
    from modelassay.cli.superposition_results import as_text, run_and_write

    del device
    result = run_and_write(names or [], size=size, out=out, join=join, seed=seed, force=force)
    say(as_text(result), result, as_json=as_json)
