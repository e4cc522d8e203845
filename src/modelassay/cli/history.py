"""`modelassay history`: what a model encodes, layer by layer and checkpoint by checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import AsJson, CorpusPath, Device, Force, Seed, hush_loading, say


def history(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of models whose names end in the training step, or one folder of them."
        ),
    ],
    sites: Annotated[
        str,
        typer.Option(
            help="Where to read, separated by commas; by default the stream at all depths."
        ),
    ] = "",
    concepts: Annotated[
        str, typer.Option(help="Some of the concepts of Python source; by default all.")
    ] = "",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Instead of concepts of Python source: labelled prompts, as `modelassay probe` "
            "takes them."
        ),
    ] = None,
    corpus: CorpusPath = None,
    items: Annotated[
        int, typer.Option(help="Tokens of each concept, for training and testing.", min=40)
    ] = 1000,
    tokens: Annotated[
        int, typer.Option(help="Tokens of the corpus to draw them from.", min=1000)
    ] = 60_000,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/history"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Probe the checkpoints of a training run for concepts, with controls at every cell.

    Linear probes on the same items, split by document, at every layer and step. Each score is set
    against the token alone, a bag of the tokens read, and the null twin (the model at step 0, or
    the last one with weights drawn anew). Writes history.html, a picture of the leads (history.svg)
    and history.json.
    """
    hush_loading(str(checkpoints[0]))
    from modelassay.cli.history_results import HistoryJob, run_history

    job = HistoryJob(
        checkpoints=tuple(checkpoints),
        sites=tuple(site.strip() for site in sites.split(",") if site.strip()),
        concepts=tuple(name.strip() for name in concepts.split(",") if name.strip()),
        prompts=prompts,
        corpus=corpus,
        items=items,
        tokens=tokens,
        out=out,
        join=join,
        seed=seed,
        device=device,
        force=force,
    )
    text, result = run_history(job)
    say(f"{text}\nThe page is at {out / 'history.html'}", result, as_json=as_json)
