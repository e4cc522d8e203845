"""The entry point: registers the commands and turns what went wrong into one line and a code.

Exit codes: 0 done; 1 the work could not be done (or was interrupted); 2 the command line is wrong.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import modelassay
from modelassay.cli.architectures import architectures
from modelassay.cli.atlas import atlas
from modelassay.cli.audit import audit
from modelassay.cli.circuits import circuits
from modelassay.cli.cite import cite
from modelassay.cli.contrast import contrast
from modelassay.cli.convert import convert
from modelassay.cli.doctor import doctor
from modelassay.cli.examples import dataset_examples
from modelassay.cli.fit import fit
from modelassay.cli.harvest import harvest
from modelassay.cli.history import history
from modelassay.cli.lens import lens
from modelassay.cli.options import examples, note
from modelassay.cli.patch import patch
from modelassay.cli.plan import plan
from modelassay.cli.probe import probe
from modelassay.cli.report import report
from modelassay.cli.steer import steer
from modelassay.cli.superposition import superposition
from modelassay.cli.testbeds import testbeds
from modelassay.cli.visualize import visualize
from modelassay.core.errors import ModelassayError

_RESUMABLE = {"audit", "harvest", "fit", "lens", "testbeds"}


class Commands(TyperGroup):
    """Reports what a user can cause in one line, without a traceback."""

    # The type of `ctx` is private to typer, which carries its own copy of click.
    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except ModelassayError as error:
            note(f"modelassay: {error}")
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
            note(f"modelassay: {error.filename!r} must be accessible; got {error.strerror!r}.")
        except KeyboardInterrupt:
            kept = ctx.invoked_subcommand in _RESUMABLE
            hint = (
                " What is finished is kept: the same command with --resume goes on." if kept else ""
            )
            note(f"\nmodelassay: interrupted.{hint}")
        raise typer.Exit(1)


app = typer.Typer(
    name="modelassay",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the same in a terminal, a pipe and the documentation
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("modelassay audit", "modelassay audit --help"),
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"modelassay {modelassay.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def modelassay_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Which of a model's features are the model's own?

    Take a language model apart into features, and assay them: which ones does the model itself
    write, read and use, and which are only structure of its data, visible in its activations?
    """
    del version


app.command(
    epilog=examples(
        "modelassay audit",
        "modelassay audit gpt2 --site resid_pre.8 --dictionary saelens:path/to/folder",
        "modelassay audit ./my_model --site mlp_out.3 --fit topk --width 4096 --k 32",
    )
)(audit)
app.command(
    epilog=examples(
        "modelassay harvest bundled --sites resid_post.2,resid_post.4 --tokens 500000",
        "modelassay harvest ./my_model --sites mlp_out.3 --corpus texts/ --out out/mlp",
    )
)(harvest)
app.command(
    epilog=examples(
        "modelassay fit out/harvest --site resid_post.2 --fit topk --width 2048 --k 32",
        "modelassay fit out/harvest --fit batchtopk --resume",
    )
)(fit)
app.command(
    epilog=examples(
        "modelassay plan ./my_model --site resid_post.12 --width 16384,65536 --tokens 1e9",
        "modelassay plan --parameters 8e9 --d-model 4096 --layers 32 --width 1e7 --k 64 \\",
        "    --tokens 1e11 --batch-tokens 65536 --hardware h200 --within 72",
    )
)(plan)
app.command(
    epilog=examples(
        "modelassay probe bundled --concept string --sites resid_pre.0,resid_post.2,resid_post.4",
        "modelassay probe ./my_model --prompts agreement.jsonl --sites resid_post.3",
    )
)(probe)
app.command(
    epilog=examples(
        "modelassay history out/twin/checkpoints",
        "modelassay history run/checkpoint-500 run/checkpoint-1000 --prompts agreement.jsonl",
    )
)(history)
app.command(
    epilog=examples(
        "modelassay patch gpt2 --pairs agreement.jsonl",
        "modelassay patch gpt2 --pairs agreement.jsonl --parts heads --everywhere --noising",
        "modelassay patch ./my_model --pairs ioi.csv --estimate both --out patch.svg",
        "modelassay patch gpt2 --pairs ioi.csv --parts heads --everywhere --mediate --paths",
    )
)(patch)
app.command(
    epilog=examples(
        'modelassay steer bundled --dictionary out/fit --latents 12 --target " self" \\',
        '    --prompt "def area(" --strengths 0,2,4,8',
        "modelassay steer ./my_model --towards glad.txt --away sad.txt --site resid_post.2 \\",
        '    --target " happy" --prompts prompts.txt --corpus stories.txt',
    )
)(steer)
app.command(
    name="examples",
    epilog=examples(
        "modelassay examples bundled --dictionary out/fit --units 0:64",
        "modelassay examples ./my_model --site mlp_out.3 --directions directions.safetensors",
    ),
)(dataset_examples)
app.command(
    epilog=examples(
        "modelassay contrast bundled --dictionary out/fit --concept docstring",
        "modelassay contrast ./my_model --site resid_post.3 --a jailbreaks/ --b prompts/",
        "modelassay contrast ./base --tuned ./finetuned --dictionary out/fit --a asked --b others",
    )
)(contrast)
app.command(
    epilog=examples("modelassay report out/audit", "modelassay report out/audit --out page")
)(report)
app.command(
    epilog=examples(
        "modelassay convert saelens:path/to/folder out/layers.8 --to sparsify",
        "modelassay convert gemma_scope:path/to/average_l0_82 out/sae --to saelens",
        "modelassay convert --list sparsify:ORG/REPO",
        "modelassay convert --all sparsify:ORG/REPO out/all --mirror path/to/mirror",
    )
)(convert)
app.command(
    epilog=examples(
        "modelassay visualize ./squeezenet1_0 --layer features.9 --channels 0:16",
        "modelassay visualize my_model.py:build --layer layer3 --channels 3,7 --facets 4 \\",
        "    --out facets.png",
    )
)(visualize)
app.command(
    epilog=examples(
        "modelassay atlas ./squeezenet1_0 --layer features.9 --images photographs/",
        "modelassay atlas my_model.py:build --layer layer3 --images photographs/ --grid 20 \\",
        "    --layout umap --out atlas.png",
    )
)(atlas)
app.command(epilog=examples("modelassay cite out/audit", "modelassay cite topk gao2024"))(cite)
app.command(epilog=examples("modelassay doctor", "modelassay doctor --device cuda --json"))(doctor)
app.add_typer(testbeds, name="testbeds")
app.add_typer(architectures, name="architectures")
app.add_typer(lens, name="lens")
app.add_typer(superposition, name="superposition")
app.add_typer(circuits, name="circuits")


def main() -> None:
    """Run the command line."""
    app(prog_name="modelassay")
