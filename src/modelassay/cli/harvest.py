"""`modelassay harvest`: a model's activations on a corpus, to a folder on disk."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import (
    AsJson,
    CorpusPath,
    Device,
    Force,
    Resume,
    Seed,
    SubjectName,
    hush_loading,
    say,
)


def harvest(
    subject: SubjectName = "bundled",
    sites: Annotated[
        str, typer.Option(help="Where to read, separated by commas: resid_post.2,mlp_out.3")
    ] = "resid_post.2",
    corpus: CorpusPath = None,
    tokens: Annotated[int, typer.Option(help="Tokens to harvest.", min=1)] = 1_000_000,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/harvest"),
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Store a model's activations on disk.

    Beside them lies a manifest that says where they came from."""
    hush_loading(subject)
    from modelassay.cli.harvesting import store_harvest

    result = store_harvest(
        subject,
        sites.split(","),
        corpus=corpus,
        tokens=tokens,
        out=out,
        seed=seed,
        device=device,
        resume=resume,
        force=force,
    )
    text = (
        f"{result['tokens']:,} tokens of {result['subject']} at {', '.join(result['sites'])}\n"
        f"The activations are at {out}"
    )
    say(text, result, as_json=as_json)
