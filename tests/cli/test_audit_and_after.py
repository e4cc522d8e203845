"""`modelassay audit` from end to end, small, and what is done with its result afterwards."""

import json
import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.audit.result import load_audit
from modelassay.cli.citations import METHODS
from modelassay.cli.main import app
from modelassay.cli.schemas import AuditResult, CiteResult, ReportResult
from modelassay.core.references import REFERENCES

AUDIT = ["audit", "--tokens", "16000", "--width", "24", "--k", "3"]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The heads of a hundred files that every Python has: many documents, quickly tokenized."""
    folder = tmp_path_factory.mktemp("texts")
    for path in sorted(Path(os.__file__).parent.glob("*.py"))[:100]:
        head = path.read_text("utf-8", errors="replace")[:4000]
        (folder / path.name).write_text(head, "utf-8")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("audit") / "out"
    return folder, run(*AUDIT, "--corpus", texts, "--out", folder, "--json")


@pytest.mark.slow
def test_stdout_holds_the_documented_json_and_nothing_else(audited: tuple[Path, Result]):
    _, result = audited
    assert result.exit_code == 0, result.stderr
    TypeAdapter(AuditResult).validate_python(json.loads(result.stdout), strict=True, extra="forbid")


@pytest.mark.slow
def test_the_file_holds_what_was_printed(audited: tuple[Path, Result]):
    folder, result = audited
    assert json.loads((folder / "audit.json").read_text("utf-8")) == json.loads(result.stdout)


@pytest.mark.slow
def test_verdict_shares_sum_to_one_for_the_dictionary_and_every_baseline(audited):
    content = json.loads(audited[1].stdout)
    for shares in [content["verdicts"], *content["baselines"].values()]:
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert set(shares) == {"model", "activations", "undetermined", "dead"}
    assert len(content["baselines"]) >= 3


@pytest.mark.slow
def test_every_score_has_a_null_and_an_interval(audited: tuple[Path, Result]):
    content = json.loads(audited[1].stdout)
    for row in content["reconstruction"]:
        for quantity in row["evidence"].values():
            assert quantity["null_description"]
            if quantity["value"] is not None:
                assert quantity["low"] <= quantity["value"] <= quantity["high"]


@pytest.mark.slow
def test_what_lies_there_is_whole_and_nothing_is_left_over(audited: tuple[Path, Result]):
    names = {path.name for path in audited[0].iterdir()}
    assert {"audit.json", "audit.safetensors", "report.html", "dictionary"} == names
    assert load_audit(audited[0]).width == 24


@pytest.mark.slow
def test_an_existing_audit_is_not_overwritten(audited: tuple[Path, Result], texts: Path):
    before = (audited[0] / "audit.json").read_bytes()
    result = run(*AUDIT, "--corpus", texts, "--out", audited[0])
    assert result.exit_code == 1
    assert "Pass --force" in result.stderr
    assert (audited[0] / "audit.json").read_bytes() == before


@pytest.mark.slow
def test_a_dictionary_of_another_width_is_refused(
    audited: tuple[Path, Result], texts: Path, tmp_path: Path
):
    wrong = ["--dictionary", str(audited[0] / "dictionary"), "--site", "mlp_hidden.2"]
    result = run(*AUDIT, "--corpus", texts, *wrong, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "width" in result.stderr
    assert not (tmp_path / "new" / "audit.json").exists()


@pytest.mark.slow
def test_the_report_can_be_drawn_anew_elsewhere(audited: tuple[Path, Result], tmp_path: Path):
    result = run("report", audited[0], "--out", tmp_path, "--json")
    content = json.loads(result.stdout)
    TypeAdapter(ReportResult).validate_python(content, strict=True, extra="forbid")
    assert content["bytes"] == (tmp_path / "report.html").stat().st_size
    assert run("report", audited[0], "--out", tmp_path).exit_code == 1
    assert run("report", audited[0], "--out", tmp_path, "--force").exit_code == 0


@pytest.mark.slow
def test_cite_lists_what_the_audit_used(audited: tuple[Path, Result]):
    content = json.loads(run("cite", audited[0], "--json").stdout)
    TypeAdapter(CiteResult).validate_python(content, strict=True, extra="forbid")
    assert "gao2024" in {reference["key"] for reference in content["references"]}


def test_too_few_tokens_for_a_claim_are_refused(texts: Path, tmp_path: Path):
    result = run("audit", "--corpus", texts, "--tokens", "500", "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "tokens" in result.stderr
    assert not (tmp_path / "new" / "audit.json").exists()


def test_an_empty_corpus_is_refused(tmp_path: Path):
    (tmp_path / "empty.txt").write_text("")
    result = run("audit", "--corpus", tmp_path / "empty.txt", "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert result.stderr.startswith("modelassay: ")


def test_an_unknown_dictionary_is_refused(tmp_path: Path):
    result = run("audit", "--dictionary", tmp_path / "nowhere", "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr


def test_a_report_of_nothing_is_refused(tmp_path: Path):
    result = run("report", tmp_path)
    assert result.exit_code == 1
    assert "audit.json" in result.stderr


def test_a_report_of_a_damaged_audit_is_refused(tmp_path: Path):
    (tmp_path / "audit.json").write_text('{"schema_version": 1')
    result = run("report", tmp_path)
    assert result.exit_code == 1
    assert "must be JSON" in result.stderr


def test_cite_without_arguments_prints_every_reference():
    result = run("cite")
    assert all(f"{{{key}," in result.stdout for key in REFERENCES)


def test_cite_of_a_method_prints_its_papers():
    assert "@misc{gao2024," in run("cite", "topk").stdout


@pytest.mark.parametrize(
    ("command", "key"), [("lens", "belrose2023"), ("patch", "vig2020"), ("steer", "rimsky2024")]
)
def test_cite_of_a_command_prints_its_papers(command: str, key: str):
    assert f"{{{key}," in run("cite", command).stdout


def test_every_method_and_command_cites_known_papers():
    assert {key for keys in METHODS.values() for key in keys} <= set(REFERENCES)


def test_cite_of_an_unknown_name_suggests_near_misses():
    result = run("cite", "topkk")
    assert result.exit_code == 1
    assert "Did you mean 'topk'" in result.stderr


def test_cite_writes_a_file_but_not_over_another(tmp_path: Path):
    assert run("cite", "gao2024", "--out", tmp_path / "a.bib").exit_code == 0
    assert (tmp_path / "a.bib").read_text("utf-8").startswith("@misc{gao2024,")
    assert run("cite", "topk", "--out", tmp_path / "a.bib").exit_code == 1
