"""`modelassay fit`: a dictionary for stored activations."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import (
    AsJson,
    BadBatchPolicy,
    DeadLatentPolicy,
    Device,
    FitKind,
    Force,
    Normalisation,
    OptimizerName,
    Precision,
    Resume,
    ScheduleName,
    say,
    sentence,
)
from modelassay.cli.schemas import SCHEMA_VERSION, FitResult, FitsResult


def fit(
    harvest: Annotated[Path, typer.Argument(help="Folder that `modelassay harvest` wrote.")] = Path(
        "out/harvest"
    ),
    site: Annotated[
        list[str] | None, typer.Option(help="Which of its sites; needed if it has several.")
    ] = None,
    fit: FitKind = "topk",
    width: Annotated[
        list[int] | None, typer.Option(help="Latents of the dictionary. [1024]", min=1)
    ] = None,
    k: Annotated[list[int] | None, typer.Option(help="Active latents a token. [16]", min=1)] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens to train on. Default: four epochs.", min=1)
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(help="Default: by width, length of the run and optimiser."),
    ] = None,
    optimizer: Annotated[OptimizerName, typer.Option(help="Optimiser.")] = "adam",
    schedule: Annotated[
        ScheduleName, typer.Option(help="How the learning rate falls after its warm-up.")
    ] = "linear",
    initial_k: Annotated[
        int | None, typer.Option(help="Active latents a token at first, falling to --k.", min=1)
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the encoder's product.")] = "float32",
    normalisation: Annotated[
        Normalisation, typer.Option(help="Train on scaled or on whitened activations.")
    ] = "scale",
    dead_latents: Annotated[
        DeadLatentPolicy, typer.Option(help="What is done about latents that no longer fire.")
    ] = "default",
    bad_batches: Annotated[
        BadBatchPolicy, typer.Option(help="Stop at NaN and Inf, or leave out such batches.")
    ] = "stop",
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/dictionary"),
    as_json: AsJson = False,
    latent_shards: Annotated[
        int,
        typer.Option(
            help="With torchrun: divide the latents between so many processes, and each batch "
            "between the rest.",
            min=1,
        ),
    ] = 1,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed of everything that is drawn at random. [0]")
    ] = None,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Fit sparse dictionaries to stored activations.

    --site, --width, --k, --learning-rate and --seed may be given more than once: all
    combinations are trained on one pass, each written to a folder of its own in --out.
    """
    from modelassay.cli.fitting import every_entry, fit_stored
    from modelassay.fitting.options import TrainingOptions

    results = fit_stored(
        harvest,
        every_entry(
            fit,
            widths=width or [1024],
            ks=k or [16],
            learning_rates=learning_rate or [],
            seeds=seed or [0],
        ),
        sites=site or [],
        tokens=tokens,
        options=TrainingOptions(
            optimizer=optimizer,
            schedule=schedule,
            initial_k=initial_k,
            precision=precision,
            normalisation=normalisation,
            dead_latents=dead_latents,
            bad_batches=bad_batches,
        ),
        latent_shards=latent_shards,
        out=out,
        device=device,
        resume=resume,
        force=force,
    )
    if results is None:
        return
    text = "\n".join(map(_described, results))
    if len(results) == 1:
        say(text, results[0], as_json=as_json)
        return
    several: FitsResult = {
        "schema_version": SCHEMA_VERSION,
        "directory": str(out),
        "dictionaries": results,
    }
    say(text, several, as_json=as_json)


def _described(result: FitResult) -> str:
    """A dictionary and its evidence, for people."""
    lines = [f"  {sentence(quantity)}" for quantity in result["evidence"].values()]
    head = f"{result['name']} at {result['site']}, on held-out documents:"
    return "\n".join([head, *lines, f"The dictionary is at {result['directory']}"])
