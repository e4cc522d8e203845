"""`modelassay probe`: what is encoded at some sites, and whether the model uses it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import (
    AsJson,
    CorpusPath,
    Device,
    Force,
    Seed,
    SubjectName,
    hush_loading,
    say,
)

ProbeKind = Literal["logistic", "mass_mean", "mass_mean_tilted", "sparse", "mlp"]
PoolName = Literal["token", "mean", "max"]


def probe(
    subject: SubjectName = "bundled",
    sites: Annotated[
        str, typer.Option(help="Where to read, separated by commas: resid_post.2,mlp_out.3")
    ] = "resid_pre.0,resid_post.2",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Labelled prompts, one JSON object a line: text, label, and if known group, type "
            "and continuations (one for each of the two classes)."
        ),
    ] = None,
    concept: Annotated[
        str,
        typer.Option(
            help="Without --prompts: a concept of Python source, probed at tokens of the corpus."
        ),
    ] = "string",
    corpus: CorpusPath = None,
    method: Annotated[ProbeKind, typer.Option(help="Kind of probe.")] = "logistic",
    k: Annotated[int, typer.Option(help="Coordinates of a sparse probe.", min=1)] = 10,
    pool: Annotated[
        PoolName, typer.Option(help="Read the item's token, or pool the tokens up to it.")
    ] = "token",
    per_class: Annotated[
        int, typer.Option(help="Items of each class, drawn from the corpus.", min=2)
    ] = 500,
    test_share: Annotated[float, typer.Option(help="Share of the items for testing.")] = 0.3,
    description_length: Annotated[
        bool,
        typer.Option(help="Also measure online codes, which takes most of the time."),
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/probe"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Probe a model for a label, with every control beside the accuracy.

    Groups of items (documents, nouns, pairs) never stand on both sides of the split. Beside each
    probe stand majority, shuffled labels, the token alone, the tokens read so far, the embedding, a
    model with weights drawn anew, a control task, an online code, and what is left after erasure.
    With continuations, the probe's direction is tested in the model: "encoded" and "used" are two
    columns. Writes probes.html, probes.json and the directions.
    """
    hush_loading(subject)
    from modelassay.cli.probing import ProbeJob, run_probes

    job = ProbeJob(
        subject=subject,
        sites=tuple(site.strip() for site in sites.split(",")),
        prompts=prompts,
        concept=concept,
        corpus=corpus,
        method=method,
        k=k,
        pool=pool,
        per_class=per_class,
        test_share=test_share,
        description_length=description_length,
        out=out,
        join=join,
        seed=seed,
        device=device,
        force=force,
    )
    text, result = run_probes(job)
    say(f"{text}\nThe page is at {out / 'probes.html'}", result, as_json=as_json)
