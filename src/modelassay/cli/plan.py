"""`modelassay plan`: what a run would take, before it is begun."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal

import typer

from modelassay.cli.options import (
    AsJson,
    Device,
    FitKind,
    OptimizerName,
    PerToken,
    Seed,
    hush_loading,
    say,
)


def whole_number(text: str | int) -> int:
    """A count as people write large ones: 100000, 100_000 or 1e5; a default comes as it is."""
    try:
        number = Decimal(text)
        count = int(number)
    except (InvalidOperation, ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no number. Write 100000, 100_000 or 1e5.") from None
    if count != number or count < 1:
        raise typer.BadParameter(f"{text!r} is no whole number of at least 1.")
    return count


def whole_numbers(text: str) -> tuple[int, ...]:
    """Counts separated by commas."""
    return tuple(whole_number(part.strip()) for part in text.split(","))


def plan(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="`bundled`, a Hugging Face id, or the folder of a model: its configuration is "
            "enough. Not with --parameters.",
            show_default="bundled",
        ),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="Where to read: resid_post.2, mlp_out.3 … Default: the middle layer's."),
    ] = None,
    fit: FitKind = "topk",
    width: Annotated[
        str,
        typer.Option(
            help="Latents; several dictionaries on one pass: 16384,65536,1e6",
            metavar="NUMBER[,NUMBER…]",
        ),
    ] = "1024",
    k: PerToken = 16,
    tokens: Annotated[
        int,
        typer.Option(
            help="Tokens to train on, repeats counted.", parser=whole_number, metavar="NUMBER"
        ),
    ] = 100_000_000,
    passes: Annotated[int, typer.Option(help="How often each token is seen.", min=1)] = 1,
    batch_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens of a step, over all devices.", parser=whole_number, metavar="NUMBER"
        ),
    ] = 2048,
    context_tokens: Annotated[int, typer.Option(help="Tokens of a context.", min=1)] = 256,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="Of the model's weights and of stored activations."),
    ] = "float32",
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16"],
        typer.Option(help="Of the dictionaries' dense products."),
    ] = "float32",
    optimizer: Annotated[OptimizerName, typer.Option(help="Optimiser.")] = "adam",
    initial_k: Annotated[
        int | None, typer.Option(help="Active latents a token at first, falling to --k.", min=1)
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option(
            help="Parameters of a model's blocks, in place of SUBJECT; with --d-model and "
            "--layers.",
            parser=whole_number,
            metavar="NUMBER",
        ),
    ] = None,
    d_model: Annotated[
        int | None, typer.Option(help="Width of its residual stream.", min=1)
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Its blocks.", min=1)] = None,
    hardware: Annotated[
        Literal["here", "a100", "h100", "h200"],
        typer.Option(help="`here` is measured, in some seconds; the others are assumed."),
    ] = "here",
    share: Annotated[
        float,
        typer.Option(help="Share of its data sheet's peaks that an assumed device attains."),
    ] = 0.5,
    link: Annotated[
        float | None,
        typer.Option(
            help="GB/s that a device sends to another. Default: unknown here, from the data "
            "sheet elsewhere."
        ),
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Hours in which the run should be done.")
    ] = None,
    store: Annotated[
        bool | None,
        typer.Option(
            "--store/--stream",
            help="Store the activations first, or run the model anew in every pass. Default: "
            "what is faster.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder whose disk is measured.")] = Path("out"),
) -> None:
    """Say what a run would take: FLOPs, bytes, hours and devices.

    The model is not loaded and nothing is trained, but for a micro-benchmark of some seconds:
    dense products, memory, disk, a training step and a transformer block.
    """
    hush_loading(subject or "bundled")
    from modelassay.cli.plan_text import as_text
    from modelassay.cli.planning import Machine, Model, Run, plan_run

    result = plan_run(
        Model(source=subject, parameters=parameters, d_model=d_model, layers=layers, site=site),
        Run(
            kind=fit,
            widths=whole_numbers(width),
            k=k,
            tokens=tokens,
            passes=passes,
            batch_tokens=batch_tokens,
            context_tokens=context_tokens,
            dtype=dtype,
            precision=precision,
            optimizer=optimizer,
            initial_k=initial_k,
        ),
        Machine(name=hardware, share=share, link=link, device=device, folder=out, seed=seed),
        within_hours=within,
        streamed=None if store is None else not store,
    )
    say(as_text(result), result, as_json=as_json)
