"""How a command's page joins the report of an audit."""

from pathlib import Path

from torch import nn

from modelassay.cli.options import note
from modelassay.core.provenance import Provenance, hash_tensors
from modelassay.report.observations import (
    Observed,
    add_observation,
    audit_folder,
    check_same_subject,
)
from modelassay.report.report import Report
from modelassay.subjects.subject import Subject


def check_join(join: Path | None, subject: Subject | nn.Module | None) -> None:
    """Before any work: is there an audit at --join, and is it of this model?

    Raises:
        CorruptFileError: there is no audit.
        ProvenanceError: it is of another model.
    """
    if join is not None:
        check_same_subject(audit_folder(join), _observed(subject))


def join_page(
    join: Path | None,
    page: Report,
    subject: Subject | nn.Module | None,
    provenance: Provenance,
    *,
    command: str,
    out: Path,
    summary: str = "",
) -> None:
    """Keep a page beside the report of an audit and say where; nothing without --join.

    Args:
        join: as the person gave it.
        page: what the command made.
        subject: the model, as a subject or a vision model's module; None for toy models.
        provenance: says when the page was made.
        command: that made it.
        out: its --out; two pages of one command with different names stand side by side.
        summary: what was found, in a line; the page's headline if empty.
    """
    if join is None:
        return
    own = out.stem if out.suffix else out.name
    name = own if own.startswith(command) else f"{command}-{own}"
    path = add_observation(
        join,
        page,
        _observed(subject),
        command=command,
        name=name,
        created=provenance.created,
        summary=summary,
    )
    report = path.parent.parent / "report.html"
    note(f"The page is also at {path}, and listed in {report}")


def _observed(subject: Subject | nn.Module | None) -> Observed:
    if subject is None:
        return Observed()
    if isinstance(subject, Subject):
        return Observed(subject=subject.name, weights=subject.fingerprint())
    return Observed(subject=type(subject).__name__, weights=hash_tensors(subject.state_dict()))
