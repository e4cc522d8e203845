"""`modelassay report`: the page for an audit that was made before."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import AsJson, Force, UnusedDevice, UnusedSeed, say
from modelassay.cli.schemas import SCHEMA_VERSION, ReportResult


def report(
    audit: Annotated[Path, typer.Argument(help="Folder that `modelassay audit` wrote.")] = Path(
        "out/audit"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html; without it, the audit's own.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    seed: UnusedSeed = 0,
    device: UnusedDevice = "cpu",
) -> None:
    """Draw the page of a stored audit anew.

    It is one HTML file, and needs no network."""
    del seed, device
    from modelassay.audit.result import load_audit
    from modelassay.report.observations import observations_of
    from modelassay.report.report import report as make_report

    page = (audit if out is None else out) / "report.html"
    stored = load_audit(audit)
    joined = observations_of(audit, stored, seen_from=page.parent)
    make_report(stored, joined).write(page, force=force)
    result: ReportResult = {
        "schema_version": SCHEMA_VERSION,
        "report": str(page),
        "bytes": page.stat().st_size,
    }
    say(f"The report is at {page}", result, as_json=as_json)
