"""`modelassay examples`: where units are active, and where they are silent."""

from pathlib import Path
from typing import Annotated

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

DictionaryName = Annotated[
    str | None,
    typer.Option(help="Latents of this dictionary: a folder, or such as saelens:FOLDER."),
]
DirectionsPath = Annotated[
    Path | None,
    typer.Option(help="Directions in a safetensors file, such as `modelassay probe` writes."),
]
UnitNumbers = Annotated[str, typer.Option(help="Which of them: all, or such as 0:64,77.")]


def dataset_examples(
    subject: SubjectName = "bundled",
    site: Annotated[str, typer.Option(help="Where the units read.")] = "resid_post.2",
    dictionary: DictionaryName = None,
    directions: DirectionsPath = None,
    units: UnitNumbers = "all",
    corpus: CorpusPath = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the corpus to read.", min=1)] = 100_000,
    harvest: Annotated[
        Path | None,
        typer.Option(help="Read the activations of `modelassay harvest` instead of the corpus."),
    ] = None,
    top: Annotated[int, typer.Option(help="Strongest examples of each unit.", min=0)] = 10,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also count which units are active together.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/examples"),
    join: Join = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Examples of latents, coordinates or directions over a corpus, and of where they are silent.

    Without --dictionary or --directions, the units are the site's own coordinates. Beside the
    strongest examples stand random ones of each part of the range, and three kinds of silent
    tokens: random, nearest to what the unit is read with, and the same tokens elsewhere.
    Activations may be larger than memory. Writes examples.html, examples.json and
    statistics.safetensors.
    """
    hush_loading(subject)
    from modelassay.cli.dataset_examples import ExamplesJob, run_examples
    from modelassay.cli.units import UnitChoice

    job = ExamplesJob(
        subject=subject,
        site=site,
        choice=UnitChoice(dictionary=dictionary, directions=directions, numbers=units),
        corpus=corpus,
        tokens=tokens,
        harvest=harvest,
        top=top,
        pairs=pairs,
        out=out,
        join=join,
        seed=seed,
        device=device,
        force=force,
    )
    text, result = run_examples(job)
    say(f"{text}\nThe page is at {out / 'examples.html'}", result, as_json=as_json)
