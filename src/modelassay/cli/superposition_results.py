"""What `modelassay superposition run` does: experiments, a folder each, and a page of all."""

from collections.abc import Sequence
from pathlib import Path

from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import claim_folder
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.cli.superposition_schemas import StudyEntry, SuperpositionRunResult
from modelassay.core.files import jsonable
from modelassay.core.progress import default_progress
from modelassay.observe.superposition.experiments import (
    EXPERIMENTS,
    Size,
    known,
    run_experiment,
)
from modelassay.observe.superposition.study import Study
from modelassay.report.superposition import superposition_report

_PAGE = "superposition.html"


def run_and_write(
    names: Sequence[str], *, size: Size, out: Path, join: Path | None, seed: int, force: bool
) -> SuperpositionRunResult:
    """Run experiments; every one is on the disk before the next begins."""
    chosen = known(names)
    check_join(join, None)
    claim_folder(out, ours=(_PAGE, *EXPERIMENTS), force=force, resume=False)
    studies: list[Study] = []
    for name in chosen:
        study = run_experiment(name, size=size, seed=seed, progress=default_progress())
        study.save(out / name)
        studies.append(study)
    report = superposition_report(studies)
    page = report.write(out / _PAGE, force=True)
    provenance = studies[0].provenance
    summary = "; ".join(study.title for study in studies)
    join_page(join, report, None, provenance, command="superposition", out=out, summary=summary)
    return {
        "schema_version": SCHEMA_VERSION,
        "size": size,
        "seed": seed,
        "page": str(page),
        "studies": [_entry(study, out) for study in studies],
    }


def _entry(study: Study, out: Path) -> StudyEntry:
    return {
        "name": study.name,
        "title": study.title,
        "rows": jsonable(study.rows),
        "settings": jsonable(study.settings),
        "folder": str(out / study.name),
    }


def as_text(result: SuperpositionRunResult) -> str:
    """The numbers for a terminal, and where the page is."""
    lines: list[str] = []
    for study in result["studies"]:
        lines.append(study["title"])
        for row in study["rows"]:
            said = (
                f"{key} {value}" if isinstance(value, str) else f"{key} {_shown(value)}"
                for key, value in row.items()
                if value != ""
            )
            lines.append("  " + "  ".join(said))
        lines.append("")
    lines.append(f"The page is at {result['page']}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
