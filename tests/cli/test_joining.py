"""`--join`: pages of commands beside the report of an audit of the same model."""

import json
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner, Result

from modelassay.audit.result import Audit
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.main import app
from modelassay.core.errors import ProvenanceError
from modelassay.core.provenance import Provenance, hash_tensors
from modelassay.report.report import report
from modelassay.subjects.load import load_subject
from tests.report.conftest import made_up_audit


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def audit() -> Audit:
    return made_up_audit(8, vocabulary=tuple(f"word{i}" for i in range(40)))


@pytest.fixture
def folder(audit: Audit, tmp_path: Path) -> Path:
    """A report as if the bundled model had been audited."""
    folder = tmp_path / "audit"
    audit.save(folder)
    content = json.loads((folder / "audit.json").read_text("utf-8"))
    content["subject"] = "bundled"
    content["provenance"]["facts"]["subject_weights"] = load_subject("bundled").fingerprint()
    (folder / "audit.json").write_text(json.dumps(content), "utf-8")
    report(audit).write(folder / "report.html")
    return folder


def test_a_lens_joins_even_if_its_own_output_is_a_picture(folder: Path, tmp_path: Path):
    for text in ("x = [1", "def f(x):"):
        result = run(
            "lens", "show", text, "--out", tmp_path / "lens.svg", "--join", folder, "--force"
        )
        assert result.exit_code == 0, result.stderr
    assert "listed in" in result.stderr
    assert sorted(p.name for p in (folder / "observations").iterdir()) == ["lens.html", "lens.json"]
    shown = (folder / "report.html").read_text("utf-8")
    assert shown.count('href="observations/lens.html"') == 1
    assert "logit lens on “def f(x):”" in shown  # the second run replaced the first
    drawn = run("report", folder, "--out", tmp_path / "elsewhere")
    assert drawn.exit_code == 0, drawn.stderr
    anew = (tmp_path / "elsewhere" / "report.html").read_text("utf-8")
    assert 'href="../audit/observations/lens.html"' in anew


def test_a_module_joins_by_its_weights_and_toys_join_any_report(folder: Path, audit: Audit):
    module = nn.Linear(2, 3)
    content = json.loads((folder / "audit.json").read_text("utf-8"))
    content["provenance"]["facts"]["subject_weights"] = hash_tensors(module.state_dict())
    (folder / "audit.json").write_text(json.dumps(content), "utf-8")
    provenance = Provenance.collect(seed=0)
    check_join(folder, module)
    join_page(
        folder, report(audit), module, provenance, command="circuits", out=Path("out/tuning.html")
    )
    join_page(folder, report(audit), None, provenance, command="superposition", out=Path("a/toys"))
    assert {path.stem for path in (folder / "observations").iterdir()} == {
        "circuits-tuning", "superposition-toys",
    }  # fmt: skip
    with pytest.raises(ProvenanceError, match="must be of the model"):
        check_join(folder, nn.Linear(2, 3))


def test_what_cannot_be_joined_is_said_before_any_work(audit: Audit, folder: Path, tmp_path: Path):
    out = tmp_path / "lens.html"
    nothing = run("lens", "show", "x", "--out", out, "--join", tmp_path)
    assert nothing.exit_code == 1
    assert "without an audit.json" in nothing.stderr
    audit.save(tmp_path / "other")
    other = run("lens", "show", "x", "--out", out, "--join", tmp_path / "other")
    assert other.exit_code == 1
    assert "must be of the model of the report" in other.stderr
    assert not out.exists()
