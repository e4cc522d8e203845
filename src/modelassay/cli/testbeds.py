"""`modelassay testbeds`: constructions with two known truths, and the league of methods on them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelassay.cli.options import AsJson, Force, Resume, Seed, UnusedSeed, examples, say

testbeds = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Constructions with two known truths, and the league of methods on them.",
    epilog=examples(
        "modelassay testbeds list",
        "modelassay testbeds run --testbeds T3 --methods pca,topk",
    ),
)

Source = Annotated[
    Path | None,
    typer.Option("--from", help="A Python file with testbeds of your own. It is run."),
]
Name = Annotated[str, typer.Argument(help="A testbed's name, such as T4a.")]
NoDevice = Annotated[
    str, typer.Option("--device", help="Has no effect: testbeds are small, and run on the CPU.")
]
OutFile = Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.")]


@testbeds.command(
    "list",
    epilog=examples("modelassay testbeds list", "modelassay testbeds list --from my_testbed.py"),
)
def list_testbeds(
    source: Source = None,
    as_json: AsJson = False,
    out: OutFile = None,
    force: Force = False,
    seed: UnusedSeed = 0,
    device: NoDevice = "cpu",
) -> None:
    """List all testbeds with what each claims, and the methods."""
    del seed, device
    from modelassay.cli.testbed_results import as_text, listed

    result = listed(source)
    _keep(result, out, force=force)
    say(as_text(result), result, as_json=as_json)


@testbeds.command(
    epilog=examples(
        "modelassay testbeds show T4a", "modelassay testbeds show mine --from my_testbed.py"
    )
)
def show(
    name: Name,
    source: Source = None,
    known: Annotated[
        bool, typer.Option("--known", help="Reproduce its known numbers too. May take a minute.")
    ] = False,
    as_json: AsJson = False,
    out: OutFile = None,
    force: Force = False,
    seed: Seed = 0,
    device: NoDevice = "cpu",
) -> None:
    """Build a testbed, and show its arms, its truths and what chance matches."""
    del device
    from modelassay.cli.testbed_results import described, description

    result = described(name, source, seed=seed, known=known)
    _keep(result, out, force=force)
    say(description(result), result, as_json=as_json)


@testbeds.command(
    epilog=examples(
        "modelassay testbeds check T3.4x4", "modelassay testbeds check mine --from my_testbed.py"
    )
)
def check(
    name: Name,
    source: Source = None,
    as_json: AsJson = False,
    out: OutFile = None,
    force: Force = False,
    seed: Seed = 0,
    device: NoDevice = "cpu",
) -> None:
    """Hold a testbed against the conformance suite.

    Is it reproducible, do oracles of either truth score as they must, do random dictionaries find
    neither, does the order of latents not matter? Fails (exit code 1) if a check does.
    """
    del device
    from modelassay.cli.testbed_results import checked, verdicts

    result = checked(name, source, seed=seed)
    _keep(result, out, force=force)
    say(verdicts(result), result, as_json=as_json)
    if not result["passed"]:
        raise typer.Exit(1)


@testbeds.command(
    epilog=examples(
        "modelassay testbeds run",
        "modelassay testbeds run --methods topk,pca --testbeds T1,T3 --seeds 3 --jobs 2",
        "modelassay testbeds run --from my_testbed.py --out out/mine",
    )
)
def run(
    testbeds: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between; T1 stands for all of its variants. Default: all, or "
            "those of --from.",
            show_default=False,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Names with commas between. Default: all.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Constructions of each testbed.", min=1)] = 3,
    fits: Annotated[int, typer.Option(help="Fits of each method to each construction.", min=1)] = 1,
    jobs: Annotated[int, typer.Option(help="Processes side by side.", min=1)] = 2,
    source: Source = None,
    out: Annotated[Path, typer.Option(help="Folder for league.html and league.json.")] = Path(
        "out/testbeds"
    ),
    as_json: AsJson = False,
    seed: Seed = 0,
    device: NoDevice = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Run methods on testbeds, and write the league table.

    Each method on each construction is kept as soon as it is finished, so that an interrupted
    league goes on with --resume. What fails is named in the table with its reason, and tried again
    with --resume; the exit code is then 1.
    """
    del device
    from modelassay.cli.testbed_results import headline
    from modelassay.core.files import jsonable
    from modelassay.core.progress import BarProgress
    from modelassay.report.league import league_report
    from modelassay.testbeds.league_run import LeagueConfig, run_league

    config = LeagueConfig(
        testbeds=_names(testbeds),
        methods=_names(methods),
        seeds=seeds,
        seed=seed,
        fits=fits,
        jobs=jobs,
        source=source,
        out=out,
        resume=resume,
        force=force,
    )
    league = run_league(config, BarProgress())
    league_report(league).write(out / "league.html", force=True)  # run_league has the folder
    say(headline(league, out / "league.html"), jsonable(league.summary()), as_json=as_json)
    if league.failures:
        raise typer.Exit(1)


def _names(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())


def _keep(result: Any, out: Path | None, *, force: bool) -> None:
    if out is None:
        return
    from modelassay.cli.output import refuse_existing
    from modelassay.core.files import write_json

    refuse_existing(out, force=force)
    write_json(out, result)
