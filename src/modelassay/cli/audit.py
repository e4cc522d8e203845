"""`modelassay audit`: the main job, from a model to a report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelassay.cli.options import (
    AsJson,
    CorpusPath,
    Device,
    FitKind,
    Force,
    Latents,
    PerToken,
    Resume,
    Seed,
    SubjectName,
    hush_loading,
    say,
)


def audit(
    subject: SubjectName = "bundled",
    site: Annotated[
        str | None,
        typer.Option(help="Which tensor: resid_post.2, mlp_out.3 … Default: the middle layer's."),
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option(
            help="A dictionary's folder, or FORMAT:PATH as for `modelassay convert`. "
            "Without it, one is fitted.",
            show_default=False,
        ),
    ] = None,
    fit: FitKind = "topk",
    width: Latents = 1024,
    k: PerToken = 16,
    corpus: CorpusPath = None,
    tokens: Annotated[int, typer.Option(help="Tokens to harvest.", min=1)] = 400_000,
    out: Annotated[
        Path, typer.Option(help="Folder for report.html, audit.json and audit.safetensors.")
    ] = Path("out/audit"),
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Say which features are the model's own, with evidence.

    The answer is given latent by latent. Without arguments: fits a dictionary to the bundled
    language model, audits it beside its baselines and null twins, and writes a report. Needs no
    network.
    """
    hush_loading(subject)
    from modelassay.audit.run import AuditConfig, run_audit
    from modelassay.cli.recipes import recipe_of
    from modelassay.core.files import jsonable
    from modelassay.core.progress import BarProgress
    from modelassay.report.observations import observations_of
    from modelassay.report.report import report

    config = AuditConfig(
        subject=subject,
        site=site,
        dictionary=dictionary,
        recipe=recipe_of(fit, width=width, k=k),
        corpus=corpus,
        tokens=tokens,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
        force=force,
    )
    result = run_audit(config, BarProgress())
    joined = observations_of(out, result, seen_from=out)
    # run_audit has claimed the folder.
    report(result, joined).write(out / "report.html", force=True)
    summary = jsonable(result.summary())
    say(_headline(summary, out / "report.html"), summary, as_json=as_json)


def _headline(summary: dict[str, Any], page: Path) -> str:
    shares = "\n".join(f"  {name:<13} {share:6.1%}" for name, share in summary["verdicts"].items())
    what = f"{summary['width']} latents of {summary['dictionary']} at {summary['site']}"
    return f"{what} of {summary['subject']}:\n{shares}\nThe report is at {page}"
