"""`modelassay patch`: which parts of a run carry the difference between two prompts."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import AsJson, Device, Force, Seed, SubjectName, hush_loading, say

Estimate = Literal["none", "gradient", "integrated", "both"]


def patch(
    subject: SubjectName,
    pairs: Annotated[
        Path,
        typer.Option(
            help="JSON lines with clean_prefix, patch_prefix, clean_answer and patch_answer; or "
            "CSV with clean and corrupted (indirect objects, greater-than)."
        ),
    ],
    parts: Annotated[
        str,
        typer.Option(
            help="What is carried over: heads, roles in every layer (resid_pre, mlp_out …) or "
            "sites (mlp_out.3), separated by commas."
        ),
    ] = "resid_pre",
    dictionary: Annotated[
        str | None,
        typer.Option(help="Carry over latents of this dictionary and its error instead."),
    ] = None,
    latents: Annotated[
        int, typer.Option(help="Of a dictionary, the latents whose estimated effect is largest.")
    ] = 16,
    noising: Annotated[
        bool, typer.Option("--noising", help="Put corrupt parts into the clean run instead.")
    ] = False,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="All positions together instead of one by one.")
    ] = False,
    measure: Annotated[
        Literal["logit_difference", "probability_difference"],
        typer.Option(help="Answers against wrong answers."),
    ] = "logit_difference",
    estimate: Annotated[
        Estimate, typer.Option(help="Attribution patching and integrated gradients beside it.")
    ] = "none",
    mediate: Annotated[
        bool,
        typer.Option(
            "--mediate",
            help="Also say how much of the corrupt prompt's effect passes through each part.",
        ),
    ] = False,
    paths: Annotated[
        bool,
        typer.Option("--paths", help="Also what each part does by its direct path alone."),
    ] = False,
    receiver: Annotated[
        str | None,
        typer.Option(
            help="Where direct paths lead: a site, such as resid_pre.4; without it, the logits. "
            "Parts that do not come before it are left out of the paths."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many pairs.", min=1)] = 64,
    out: Annotated[Path, typer.Option(help="Page (.html) or heat-map (.svg, .png).")] = Path(
        "out/patch.html"
    ),
    join: Join = None,
    as_json: AsJson = False,
    force: Force = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Patch parts of one run into another, and draw what each carries over.

    Pairs whose prompts this tokenizer cuts into different numbers of tokens are left out, and
    counted."""
    hush_loading(subject)
    from modelassay.cli.patching import PatchJob, patched
    from modelassay.cli.patching_results import patched_text

    result = patched(
        PatchJob(
            subject=subject, pairs=pairs, parts=parts.split(","), dictionary=dictionary,
            latents=latents, noising=noising, everywhere=everywhere, measure=measure,
            estimate=estimate, mediate=mediate, paths=paths, receiver=receiver, limit=limit,
            out=out, join=join, force=force, seed=seed, device=device,
        )
    )  # fmt: skip
    say(patched_text(result), result, as_json=as_json)
