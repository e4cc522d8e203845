"""Options that all commands share, and how a command says what it found."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from modelassay.cli.schemas import Quantity

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout (progress: stderr).")
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps …")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is in --out already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from what an earlier run left.")]
SubjectName = Annotated[
    str, typer.Argument(help="`bundled`, a Hugging Face id, or the folder of a model.")
]
Kind = Literal[
    "topk",
    "batchtopk",
    "matryoshka",
    "jumprelu",
    "gated",
    "abstopk",
    "groupmax",
    "relu",
    "annealed",
    "matching_pursuit",
    "orthogonal_matching_pursuit",
    "archetypal",
]
OptimizerName = Literal["adam", "signum", "muon"]
ScheduleName = Literal["linear", "cosine", "constant"]
Precision = Literal["float32", "bfloat16", "auto"]
Normalisation = Literal["scale", "whitening"]
DeadLatentPolicy = Literal["default", "auxk", "pre_activation", "resample", "none"]
BadBatchPolicy = Literal["stop", "skip"]
FitKind = Annotated[Kind, typer.Option("--fit", help="Kind of dictionary to fit.")]
Latents = Annotated[int, typer.Option("--width", help="Latents of the dictionary.", min=1)]
PerToken = Annotated[int, typer.Option("--k", help="Active latents a token.", min=1)]
CorpusPath = Annotated[
    Path | None,
    typer.Option(
        "--corpus",
        help="A text file, a folder of texts, or a .jsonl of token ids. "
        "Without it: Python's standard library.",
    ),
]

# Scripts may pass the same options to every command; where nothing is random, this says so.
UnusedSeed = Annotated[int, typer.Option("--seed", help="Has no effect: nothing here is random.")]
UnusedDevice = Annotated[
    str, typer.Option("--device", help="Has no effect: nothing here is computed on a device.")
]


def examples(*lines: str) -> str:
    """The end of a command's help; the backspace keeps its lines from being wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def say(text: str, result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a command's result on stdout: for people, or as one JSON object."""
    typer.echo(json.dumps(result, indent=1, ensure_ascii=False) if as_json else text)


def note(text: str) -> None:
    """Print a remark on stderr."""
    typer.echo(text, err=True)


def sentence(quantity: Quantity) -> str:
    """A quantity with its interval and its null; a dash for what was not measured."""

    def shown(part: float | None) -> str:
        return "–" if part is None else f"{part:.4g}"

    interval = f"[{shown(quantity['low'])}, {shown(quantity['high'])}]"
    null = f"null {shown(quantity['null'])}"
    return f"{quantity['title']}: {shown(quantity['value'])} {interval}, {null}"


def hush_loading(subject: str) -> None:
    """No bar of transformers for weights on this disk, which load in a blink; downloads keep it.

    Has an effect only before transformers is imported.
    """
    if subject == "bundled" or Path(subject).is_dir():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
