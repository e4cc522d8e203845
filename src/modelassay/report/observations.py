"""Observations of an audited model: pages that other commands made, kept beside its report.

    <audit>/observations/<name>.html   the page
    <audit>/observations/<name>.json   its title, what it found in a line, and where it came from

The report lists what lies there. A page of the same name replaces the earlier one.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelassay.audit.result import Audit, load_audit
from modelassay.core.errors import CorruptFileError, ProvenanceError
from modelassay.core.files import read_json, write_atomically, write_json
from modelassay.report.observation_parts import ObservationEntry, ObservationList
from modelassay.report.parts import Page, Paragraph
from modelassay.report.report import Report, report

SCHEMA_VERSION = 1
_FOLDER = "observations"
_WORDS = ("command", "title", "subtitle", "summary", "created")


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """The model that an observation was made of."""

    subject: str | None = None
    """Its name; None for what was made of no model, which may stand beside any."""
    weights: str | None = None
    """Fingerprint of its weights, where it is known: decides instead of the name."""


def audit_folder(path: str | Path) -> Path:
    """The folder of an audit, by itself or by the report or JSON in it.

    Raises:
        CorruptFileError: if there is no audit.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if not (folder / "audit.json").is_file():
        raise CorruptFileError(
            f"What a page joins must be the folder of an audit; got {str(path)!r} without an "
            "audit.json. Make one with `modelassay audit --out`."
        )
    return folder


def check_same_subject(folder: Path, observed: Observed) -> None:
    """Refuse a page of another model than the audited one.

    Raises:
        ProvenanceError: if names, or fingerprints where both are known, differ.
    """
    audited = read_json(folder / "audit.json")
    facts = (audited.get("provenance") or {}).get("facts") or {}
    name, weights = audited.get("subject"), facts.get("subject_weights")
    if not _same(observed.subject, observed.weights, name, weights):
        raise ProvenanceError(
            f"A page must be of the model of the report that it joins, {name!r} ({weights}); got "
            f"{observed.subject!r} ({observed.weights}). Join a report of that model."
        )


def add_observation(
    folder: str | Path,
    page: Report,
    observed: Observed,
    *,
    command: str,
    name: str,
    created: str,
    summary: str = "",
) -> Path:
    """Keep a page beside a report, and draw the report anew so that it lists the page.

    Args:
        folder: of the audit.
        page: what was made; it gets a link back to the report.
        observed: of which model it is.
        command: that made it, such as "patch".
        name: of its files; a page of this name is replaced.
        created: when it was made; UTC, ISO 8601.
        summary: what was found, in a line; the page's headline, or else its subtitle, if empty.

    Returns:
        The page's file.

    Raises:
        CorruptFileError: there is no audit.
        ProvenanceError: the page is of another model.
        StorageError: the folder cannot be written.
    """
    folder = audit_folder(folder)
    check_same_subject(folder, observed)
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or command
    linked = replace(page.page, home="../report.html")
    path = folder / _FOLDER / f"{name}.html"
    write_atomically(path, Report(linked).html())
    write_json(
        path.with_suffix(".json"),
        {
            "schema_version": SCHEMA_VERSION,
            "command": command,
            "title": _writable(linked.title),
            "subtitle": _writable(linked.subtitle),
            "summary": _writable(summary or summary_of(linked)),
            "created": created,
            "subject": observed.subject,
            "subject_weights": observed.weights,
        },
    )
    audit = load_audit(folder)
    drawn = report(audit, observations_of(folder, audit, seen_from=folder))
    write_atomically(folder / "report.html", drawn.html())
    return path


def summary_of(page: Page) -> str:
    """A page's headline, or else its subtitle."""
    parts = (part for section in page.sections for part in section.parts)
    headlines = [p.text for p in parts if isinstance(p, Paragraph) and p.role == "headline"]
    return headlines[0] if headlines else page.subtitle


def observations_of(folder: str | Path, audit: Audit, *, seen_from: Path) -> ObservationList | None:
    """What was joined to an audit, newest first; None if nothing was.

    A page that is missing, or a description that cannot be read, is listed with what is wrong.
    Pages of another model (the audit was run anew) are only counted.

    Args:
        folder: of the audit.
        audit: as it is stored there.
        seen_from: the folder of the report that links to the pages.
    """
    found: list[tuple[str, ObservationEntry]] = []
    others = 0
    for file in sorted((Path(folder) / _FOLDER).glob("*.json")):
        try:
            content = _description(file)
        except (CorruptFileError, OSError, UnicodeDecodeError) as error:
            found.append(("", _unreadable(file, error)))
            continue
        weights = audit.provenance.facts.get("subject_weights")
        if not _same(content["subject"], content["subject_weights"], audit.subject, weights):
            others += 1
            continue
        found.append((content["created"], _entry(file, content, seen_from)))
    if not found and not others:
        return None
    caption = "Pages of other commands, made of the same model and joined to this report. They do "
    caption += "not enter the verdicts."
    caption += f" {others} of another model are not listed." if others else ""
    found.sort(key=lambda each: each[0], reverse=True)
    return ObservationList(
        title="Observations", entries=tuple(entry for _, entry in found), caption=caption
    )


def _writable(text: str) -> str:
    # A lone surrogate in a token cannot be written as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _same(name: Any, weights: Any, other_name: Any, other_weights: Any) -> bool:
    if name is None:
        return True
    return weights == other_weights if weights and other_weights else name == other_name


def _description(file: Path) -> dict[str, Any]:
    content = read_json(file)
    missing = [key for key in _WORDS if not isinstance(content.get(key), str)]
    if missing or content.get("schema_version") != SCHEMA_VERSION:
        raise CorruptFileError(
            f"{str(file)!r} must describe an observation (schema_version {SCHEMA_VERSION}); got "
            f"schema_version {content.get('schema_version')!r}, without {', '.join(missing)}. "
            "Join the page again."
        )
    return {"subject": None, "subject_weights": None} | content


def _entry(file: Path, content: dict[str, Any], seen_from: Path) -> ObservationEntry:
    page = file.with_suffix(".html")
    there = page.is_file()
    address = os.path.relpath(page.resolve(), seen_from.resolve()) if there else ""
    return ObservationEntry(
        title=content["title"],
        summary=content["summary"],
        made=f"modelassay {content['command']} · {page.name} · "
        f"{content['created'].replace('T', ' ')[:16]} UTC",
        address=Path(address).as_posix() if there else "",
        problem="" if there else f"The page {page.name} is missing: run the command again.",
    )


def _unreadable(file: Path, error: Exception) -> ObservationEntry:
    return ObservationEntry(
        title=file.stem, summary="", made="", address="", problem=f"Cannot be read: {error}"
    )
