"""`modelassay fit`: a dictionary for stored activations."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import (
    AsJson,
    Device,
    FitKind,
    Force,
    Latents,
    PerToken,
    Resume,
    Seed,
    say,
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
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("out/dictionary"),
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Fit a sparse dictionary to stored activations."""
    from modelassay.cli.fitting import fit_stored
    from modelassay.cli.recipes import recipe_of

    result = fit_stored(
        harvest,
        recipe_of(fit, width=width, k=k),
        site=site,
        tokens=tokens,
        out=out,
        seed=seed,
        device=device,
        resume=resume,
        force=force,
    )
    text = (
        f"{result['name']} of {result['width']} latents at {result['site']}: "
        f"explained variance {result['explained_variance']:.3f}, L0 {result['l0']:.1f}, "
        f"dead {result['dead_share']:.1%} (held-out documents)\nThe dictionary is at {out}"
    )
    say(text, result, as_json=as_json)
