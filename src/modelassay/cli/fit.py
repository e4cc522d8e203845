"""`modelassay fit`: a dictionary for stored activations."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import (
    AsJson,
    DeadLatentPolicy,
    Device,
    FitKind,
    Force,
    Latents,
    Normalisation,
    OptimizerName,
    PerToken,
    Precision,
    Resume,
    ScheduleName,
    Seed,
    say,
    sentence,
)


def fit(
    harvest: Annotated[Path, typer.Argument(help="Folder that `modelassay harvest` wrote.")] = Path(
        "out/harvest"
    ),
    site: Annotated[
        str | None, typer.Option(help="Which of its sites; needed if it has several.")
    ] = None,
    fit: FitKind = "topk",
    width: Latents = 1024,
    k: PerToken = 16,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens to train on. Default: four epochs.", min=1)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: by width, length of the run and optimiser.")
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
    seed: Seed = 0,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Fit a sparse dictionary to stored activations."""
    from modelassay.cli.fitting import fit_stored
    from modelassay.cli.recipes import recipe_of
    from modelassay.fitting.options import TrainingOptions

    result = fit_stored(
        harvest,
        recipe_of(fit, width=width, k=k),
        site=site,
        tokens=tokens,
        learning_rate=learning_rate,
        options=TrainingOptions(
            optimizer=optimizer,
            schedule=schedule,
            initial_k=initial_k,
            precision=precision,
            normalisation=normalisation,
            dead_latents=dead_latents,
        ),
        latent_shards=latent_shards,
        out=out,
        seed=seed,
        device=device,
        resume=resume,
        force=force,
    )
    if result is None:
        return
    lines = [f"  {sentence(quantity)}" for quantity in result["evidence"].values()]
    head = f"{result['name']} at {result['site']}, on held-out documents:"
    say("\n".join([head, *lines, f"The dictionary is at {out}"]), result, as_json=as_json)
