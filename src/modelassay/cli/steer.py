"""`modelassay steer`: change latents or a direction, and see what it does and what it costs."""

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


def steer(
    subject: SubjectName,
    target: Annotated[
        list[str],
        typer.Option(
            help="Text whose first token's probability is the behaviour; may be given again."
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A prompt that the behaviour is measured after; may be given again."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts, one a line, instead.")
    ] = None,
    dictionary: Annotated[
        str | None, typer.Option(help="Steer latents of this dictionary, at its site.")
    ] = None,
    latents: Annotated[str, typer.Option(help="Their numbers, separated by commas.")] = "",
    towards: Annotated[
        Path | None,
        typer.Option(help="Or steer from one set of prompts to another: the wanted ones' file."),
    ] = None,
    away: Annotated[Path | None, typer.Option(help="The file of the unwanted prompts.")] = None,
    site: Annotated[
        str | None, typer.Option(help="Where the difference of their means is taken and added.")
    ] = None,
    operation: Annotated[
        Literal["add", "clamp", "scale", "ablate"], typer.Option(help="What is done to the value.")
    ] = "add",
    strengths: Annotated[
        str, typer.Option(help="Separated by commas; unused by ablate.")
    ] = "0,1,2,4,8,16",
    only_prompt_tokens: Annotated[
        str, typer.Option(help="Steer only at these token ids, separated by commas.")
    ] = "",
    random: Annotated[int, typer.Option(help="Random directions of the null.", min=1)] = 8,
    corpus: CorpusPath = None,
    tokens: Annotated[int, typer.Option(help="Held-out tokens of the cost.", min=1)] = 10_000,
    new_tokens: Annotated[
        int, typer.Option(help="Tokens written after the first prompt.", min=1)
    ] = 24,
    out: Annotated[Path, typer.Option(help="Page (.html) or curves (.svg, .png).")] = Path(
        "out/steer.html"
    ),
    join: Join = None,
    as_json: AsJson = False,
    force: Force = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Steer at several strengths: the behaviour, its cost in perplexity, and what chance does."""
    hush_loading(subject)
    from modelassay.cli.steering import SteerOptions, steered, steered_text

    result = steered(
        SteerOptions(
            subject=subject, targets=target, prompts=prompt or [], prompt_file=prompts,
            dictionary=dictionary, latents=latents, towards=towards, away=away, site=site,
            operation=operation, strengths=strengths, token_ids=only_prompt_tokens, random=random,
            corpus=corpus, tokens=tokens, new_tokens=new_tokens, out=out, join=join, force=force,
            seed=seed, device=device,
        )
    )  # fmt: skip
    say(steered_text(result), result, as_json=as_json)
