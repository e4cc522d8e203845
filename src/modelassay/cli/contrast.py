"""`modelassay contrast`: what responds to A and not to B, and what fine-tuning changed."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.examples import DictionaryName, DirectionsPath, UnitNumbers
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


def contrast(
    subject: SubjectName = "bundled",
    site: Annotated[str, typer.Option(help="Where the units read.")] = "resid_post.2",
    dictionary: DictionaryName = None,
    directions: DirectionsPath = None,
    units: UnitNumbers = "all",
    a: Annotated[Path | None, typer.Option("--a", help="Texts of A: a file or folder.")] = None,
    b: Annotated[Path | None, typer.Option("--b", help="Texts of B.")] = None,
    concept: Annotated[
        str | None,
        typer.Option(
            help="Instead: tokens of a Python corpus at which this concept holds (A), against the "
            "others (B) of the same document."
        ),
    ] = None,
    corpus: CorpusPath = None,
    tuned: Annotated[
        str | None,
        typer.Option(help="Compare with this model: what its training changed in the units."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to read, at most.", min=1)] = 100_000,
    fdr: Annotated[float, typer.Option(help="False discovery rate.")] = 0.05,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/contrast"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Units that respond to A and not to B, discovered on half of the documents and tested again.

    A and B are two corpora, or tokens with and without a concept. With --tuned, the same units read
    a second model on the same texts: which appeared, vanished or moved; and with A and B, whether
    training raised the response to A more than that to B. Writes contrast.html and contrast.json.
    """
    hush_loading(subject)
    from modelassay.cli.contrasting import ContrastJob, run_contrast
    from modelassay.cli.units import UnitChoice

    job = ContrastJob(
        subject=subject,
        site=site,
        choice=UnitChoice(dictionary=dictionary, directions=directions, numbers=units),
        a=a,
        b=b,
        concept=concept,
        corpus=corpus,
        tuned=tuned,
        tokens=tokens,
        fdr=fdr,
        out=out,
        join=join,
        seed=seed,
        device=device,
        force=force,
    )
    text, result = run_contrast(job)
    say(f"{text}\nThe page is at {out / 'contrast.html'}", result, as_json=as_json)
