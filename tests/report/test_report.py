from pathlib import Path

import pytest

from modelassay.audit.result import Audit
from modelassay.core.errors import OutputExistsError, StorageError
from modelassay.report.report import report


def test_the_file_holds_the_page_and_nothing_else_is_left(audit: Audit, tmp_path: Path) -> None:
    made = report(audit)
    path = made.write(tmp_path / "out" / "report.html")
    assert path.read_text("utf-8") == made.html()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_nothing_is_overwritten_without_force(audit: Audit, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="must not overwrite a file"):
        report(audit).write(path)
    assert path.read_text() == "mine"
    report(audit).write(path, force=True)
    assert path.read_text("utf-8").startswith("<!doctype html>")


def test_a_place_that_cannot_be_written_is_a_clear_error(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="must be writable"):
        report(audit).write(tmp_path / "file" / "report.html")


def test_the_same_audit_makes_the_same_file(audit: Audit) -> None:
    assert report(audit).html() == report(audit).html()
