"""`modelassay lens`: what each layer of a language model predicts, and which parts say so."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.join_option import Join
from modelassay.cli.options import (
    AsJson,
    CorpusPath,
    Device,
    Force,
    Resume,
    Seed,
    UnusedSeed,
    examples,
    hush_loading,
    say,
)

lens = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What each layer of a language model predicts, and which parts say so.",
    epilog=examples(
        'modelassay lens show "The quick brown fox" --model gpt2', "modelassay lens train bundled"
    ),
)

Colour = Literal["probability", "target", "rank", "entropy", "kl", "cross_entropy"]
LensKind = Literal["tuned", "jacobian"]
ModelName = Annotated[
    str, typer.Option("--model", help="`bundled`, a Hugging Face id, or the folder of a model.")
]
ModelArgument = Annotated[
    str, typer.Argument(help="`bundled`, a Hugging Face id, or the folder of a model.")
]
LensFolder = Annotated[Path, typer.Option("--lenses", help="Folder that `lens train` wrote.")]
_FOLDER = Path("out/lens")


@lens.command(
    epilog=examples(
        'modelassay lens show "def read(path):" --out lens.html',
        'modelassay lens show "Once upon a time" --model ./my_model --lens logit,tuned',
        'modelassay lens show "def read(path):" --colour kl --out lens.svg',
    )
)
def show(
    text: Annotated[str, typer.Argument(help="The text to read.")],
    model: ModelName = "bundled",
    lens: Annotated[
        str,
        typer.Option(
            "--lens", help="Kinds, separated by commas (logit, tuned, jacobian), or a lens's file."
        ),
    ] = "logit",
    lenses: LensFolder = _FOLDER,
    colour: Annotated[
        Colour, typer.Option(help="What colours the cells of a picture; the page has them all.")
    ] = "probability",
    count: Annotated[int, typer.Option(help="Likeliest tokens kept per cell.", min=1)] = 10,
    out: Annotated[Path, typer.Option(help="Page (.html) or picture (.svg, .png).")] = Path(
        "out/lens.html"
    ),
    join: Join = None,
    as_json: AsJson = False,
    force: Force = False,
    seed: UnusedSeed = 0,
    device: Device = "cpu",
) -> None:
    """Draw what each layer predicts at each token of a text.

    A page shows several lenses and measures, a picture the first lens with one of them."""
    del seed
    hush_loading(model)
    from modelassay.cli.lens_results import shown, shown_text

    result = shown(
        model, text, kinds=lens, lenses=lenses, colour=colour, count=count, out=out,
        join=join, device=device, force=force,
    )  # fmt: skip
    say(shown_text(result), result, as_json=as_json)


@lens.command(
    epilog=examples(
        "modelassay lens train bundled",
        "modelassay lens train ./my_model --corpus texts/ --kind jacobian --out out/mine",
    )
)
def train(
    model: ModelArgument = "bundled",
    kind: Annotated[LensKind, typer.Option(help="Which lens to fit.")] = "tuned",
    corpus: CorpusPath = None,
    steps: Annotated[int, typer.Option(help="Steps of a tuned lens.", min=1)] = 250,
    tokens_per_step: Annotated[
        int, typer.Option(help="Tokens per step; the paper's release used 262144.", min=1)
    ] = 8192,
    prompts: Annotated[int, typer.Option(help="Prompts of a Jacobian lens.", min=1)] = 100,
    heldout_tokens: Annotated[
        int, typer.Option(help="Held-out tokens that the lens is measured on.", min=1)
    ] = 40_000,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = _FOLDER,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Fit a lens to a model, and measure it beside the logit lens on held-out documents.

    Writes the lens and a picture of KL by layer."""
    hush_loading(model)
    from modelassay.cli.lens_training import trained, trained_text

    result = trained(
        model, kind=kind, corpus=corpus, steps=steps, tokens_per_step=tokens_per_step,
        prompts=prompts, heldout_tokens=heldout_tokens, out=out, seed=seed, device=device,
        resume=resume, force=force,
    )  # fmt: skip
    say(trained_text(result), result, as_json=as_json)


@lens.command(
    epilog=examples(
        'modelassay lens attribute "import os, " --target sys',
        'modelassay lens attribute "The keys to the cabinet" --target " are" --contrast " is"',
    )
)
def attribute(
    text: Annotated[str, typer.Argument(help="The prompt; its last token's prediction is read.")],
    model: ModelName = "bundled",
    target: Annotated[
        str | None, typer.Option(help="Token whose logit is taken apart; the likeliest if absent.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help="Token to compare with; the vocabulary's mean if absent.")
    ] = None,
    dictionary: Annotated[
        Path | None, typer.Option(help="Folder of a dictionary whose latents replace its site.")
    ] = None,
    count: Annotated[int, typer.Option(help="Parts that are listed.", min=1)] = 20,
    as_json: AsJson = False,
    seed: UnusedSeed = 0,
    device: Device = "cpu",
) -> None:
    """Say how much each head, MLP or latent adds to a logit directly.

    The final norm's scale is frozen; the parts sum to the logit, or nothing is said."""
    del seed
    hush_loading(model)
    from modelassay.cli.lens_results import attributed, attributed_text

    result = attributed(
        model, text, target=target, contrast=contrast, dictionary=dictionary, device=device
    )
    say(attributed_text(result, count), result, as_json=as_json)


@lens.command(epilog=examples("modelassay lens heads bundled", "modelassay lens heads gpt2 --json"))
def heads(
    model: ModelArgument = "bundled",
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="Texts; without them, repeated random tokens alone."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Mean attention from which a head is reported.")
    ] = 0.4,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Find previous-token, induction and duplicate-token heads.

    A head must also lie above every shuffled placement of its positions."""
    hush_loading(model)
    from modelassay.cli.lens_results import found_heads, heads_text

    result = found_heads(model, corpus=corpus, threshold=threshold, seed=seed, device=device)
    say(heads_text(result), result, as_json=as_json)
