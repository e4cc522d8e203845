"""Pages that join a report: kept whole, listed, replaced, and tolerated when they are broken."""

import json
import re
from pathlib import Path

import pytest

from modelassay.audit.result import Audit, load_audit
from modelassay.core.errors import CorruptFileError, ProvenanceError
from modelassay.report.observation_parts import ObservationEntry
from modelassay.report.observations import (
    Observed,
    add_observation,
    audit_folder,
    observations_of,
)
from modelassay.report.parts import Page, Paragraph, Section
from modelassay.report.report import Report, report
from tests.report.conftest import made_up_audit


@pytest.fixture(scope="module")
def audit() -> Audit:
    return made_up_audit(8, vocabulary=tuple(f"word{i}" for i in range(40)))


@pytest.fixture
def run(audit: Audit, tmp_path: Path) -> Path:
    folder = tmp_path / "audit"
    audit.save(folder)
    report(audit).write(folder / "report.html")
    return folder


def page(title: str = "Probes", *, headline: str = "") -> Report:
    role = "headline" if headline else "body"
    parts = (Paragraph(text=headline or "Prose.", role=role),)
    section = Section(anchor="s", title="Section", parts=parts)
    return Report(Page(title=title, subtitle="3 sites", sections=(section,), footer="foot"))


def joined(
    folder: Path,
    made: Report,
    name: str = "probe",
    created: str = "2026-01-02T03:04:05+00:00",
) -> Path:
    observed = Observed(subject=load_audit(folder).subject)
    return add_observation(folder, made, observed, command="probe", name=name, created=created)


def listed(folder: Path, seen_from: Path | None = None) -> tuple[ObservationEntry, ...]:
    found = observations_of(folder, load_audit(folder), seen_from=seen_from or folder)
    return () if found is None else found.entries


def test_a_joined_page_is_kept_and_linked_both_ways(run: Path):
    assert "Observations" not in (run / "report.html").read_text("utf-8")
    path = joined(run, page(headline="It is <b>encoded</b>."))
    assert path == run / "observations" / "probe.html"
    assert 'href="../report.html"' in path.read_text("utf-8")
    shown = (run / "report.html").read_text("utf-8")
    assert '<a href="observations/probe.html">Probes</a>' in shown
    assert "It is &lt;b&gt;encoded&lt;/b&gt;." in shown
    assert "modelassay probe · probe.html · 2026-01-02 03:04 UTC" in shown
    assert "could not be made" not in shown
    assert shown.index('id="observations"') < shown.index('id="methods"')


def test_without_a_headline_the_subtitle_sums_a_page_up(run: Path):
    joined(run, page())
    assert [entry.summary for entry in listed(run)] == ["3 sites"]


def test_a_page_of_the_same_name_replaces_the_earlier_one(run: Path):
    joined(run, page("Old"))
    joined(run, page("Other"), name="other", created="2027-01-01T00:00:00+00:00")
    joined(run, page("New"))
    assert [entry.title for entry in listed(run)] == ["Other", "New"]  # the newest first
    assert sorted(p.name for p in (run / "observations").iterdir()) == [
        "other.html", "other.json", "probe.html", "probe.json",
    ]  # fmt: skip


def test_names_that_would_leave_the_folder_are_tamed(run: Path):
    path = joined(run, page(), name="../../a b?.c")
    assert path == run / "observations" / "a-b-.c.html"


def test_a_missing_page_and_a_damaged_description_are_listed_with_what_is_wrong(run: Path):
    joined(run, page()).unlink()
    (run / "observations" / "broken.json").write_text("{", "utf-8")
    (run / "observations" / "foreign.json").write_text('{"title": 3}', "utf-8")
    joined(run, page("Whole"), name="whole")
    entries = {entry.title: entry for entry in listed(run)}
    assert set(entries) == {"Probes", "Whole", "broken", "foreign"}
    assert entries["Probes"].address == ""
    assert "probe.html is missing" in entries["Probes"].problem
    assert "must be JSON" in entries["broken"].problem
    assert "schema_version" in entries["foreign"].problem
    shown = (run / "report.html").read_text("utf-8")
    assert "is missing: run the command again" in shown
    assert re.search(r'<a href="observations/whole.html">', shown)


def test_pages_of_another_model_are_refused_and_no_longer_listed(run: Path):
    joined(run, page())
    other = Observed(subject="another")
    with pytest.raises(ProvenanceError, match=r"must be of the model of the report.*'another'"):
        add_observation(run, page(), other, command="probe", name="x", created="2026")
    content = json.loads((run / "audit.json").read_text("utf-8"))
    content["subject"] = "another"  # as if the folder were audited anew
    (run / "audit.json").write_text(json.dumps(content), "utf-8")
    found = observations_of(run, load_audit(run), seen_from=run)
    assert found is not None
    assert found.entries == ()
    assert "1 of another model" in found.caption


def test_weights_decide_where_both_are_known(run: Path):
    content = json.loads((run / "audit.json").read_text("utf-8"))
    content["provenance"]["facts"]["subject_weights"] = "abc"
    (run / "audit.json").write_text(json.dumps(content), "utf-8")
    same = Observed(subject="by another path", weights="abc")
    add_observation(run, page(), same, command="lens", name="lens", created="2026")
    other = Observed(subject=content["subject"], weights="def")
    with pytest.raises(ProvenanceError, match=r"\(def\)"):
        add_observation(run, page(), other, command="lens", name="lens", created="2026")
    add_observation(run, page(), Observed(), command="superposition", name="toys", created="2026")
    assert len(listed(run)) == 2


def test_links_lead_to_the_pages_from_wherever_the_report_is_drawn(run: Path, tmp_path: Path):
    joined(run, page())
    assert listed(run, tmp_path / "elsewhere")[0].address == "../audit/observations/probe.html"


def test_a_place_without_an_audit_is_refused(run: Path, tmp_path: Path):
    assert audit_folder(run / "report.html") == run
    with pytest.raises(CorruptFileError, match=r"without an audit\.json"):
        audit_folder(tmp_path)


def test_text_that_no_file_can_hold_is_replaced(run: Path):
    joined(run, page("lone \ud800", headline="half \udc00 a pair"))
    assert listed(run)[0].title == "lone ?"
    assert "half ? a pair" in (run / "report.html").read_text("utf-8")


def test_the_terminal_lists_them_too(run: Path, audit: Audit):
    joined(run, page(headline="Found."))
    text = report(audit, observations_of(run, audit, seen_from=run)).text()
    assert "OBSERVATIONS\n  Probes: Found.  observations/probe.html" in text
