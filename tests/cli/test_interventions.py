"""`modelassay patch` and `modelassay steer`, end to end on the bundled model."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli.intervention_schemas import PatchResult, SteerResult
from modelassay.cli.main import app

LINES = ("values = {}1, 2", "names = {}a, b", "return {}x, y", "x = {}0, 0", "if key in {}1, 3")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def brackets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "brackets.jsonl"
    rows = [
        {
            "clean_prefix": line.format("["),
            "patch_prefix": line.format("("),
            "clean_answer": "]",
            "patch_answer": ")",
        }
        for line in LINES
    ]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return file


def test_patching_prints_the_documented_json_and_writes_a_page(tmp_path: Path, brackets: Path):
    page = tmp_path / "patch.html"
    result = run(
        "patch", "bundled", "--pairs", brackets, "--parts", "resid_pre.0,resid_post.5",
        "--estimate", "gradient", "--out", page, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(PatchResult).validate_python(content, strict=True, extra="forbid")
    assert content["total"] > 0  # the model closes the bracket that was opened
    assert "could not be made" not in page.read_text("utf-8")
    again = run("patch", "bundled", "--pairs", brackets, "--out", page)
    assert again.exit_code == 1
    assert "--force" in again.stderr


def test_mediation_and_paths_are_measured_when_asked_for(tmp_path: Path, brackets: Path):
    page = tmp_path / "patch.html"
    result = run(
        "patch", "bundled", "--pairs", brackets, "--parts", "mlp_out.1,resid_post.4,resid_post.5",
        "--everywhere", "--mediate", "--receiver", "resid_pre.5", "--out", page, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(PatchResult).validate_python(content, strict=True, extra="forbid")
    shares = {cell["part"]: cell["share"] for cell in content["cells"]}
    _, middle, last = content["mediation"]
    # The stream carries everything, so that everything passes through it and nothing beside it.
    for whole in (middle, last):
        assert whole["mediated"]["value"] == pytest.approx(1, abs=1e-4)
        assert whole["direct"]["value"] == pytest.approx(0, abs=1e-3)
        assert whole["total"]["value"] == pytest.approx(-content["total"], abs=1e-4)
    paths = {cell["part"]: cell["share"] for cell in content["paths"]}
    assert set(paths) == {"mlp_out.1", "resid_post.4"}  # the last does not come before it
    assert paths["resid_post.4"] == pytest.approx(shares["resid_post.4"], abs=1e-4)
    assert paths["mlp_out.1"] != pytest.approx(shares["mlp_out.1"], abs=1e-3)
    html = page.read_text("utf-8")
    assert "could not be made" not in html
    assert "Path patching to resid_pre.5" in html
    assert "Direct and indirect effects" in html
    late = run(
        "patch", "bundled", "--pairs", brackets, "--parts", "resid_post.5", "--receiver",
        "resid_pre.2", "--out", tmp_path / "late.html",
    )  # fmt: skip
    assert late.exit_code == 1
    assert "must come before the receiver" in late.stderr


def test_steering_prints_the_documented_json_and_writes_curves(tmp_path: Path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        (texts / f"{number}.py").write_text(f"def f{number}(x):\n    return [x, {number}]\n" * 8)
    (tmp_path / "round").write_text("x = (1, 2\nreturn (a, b\n")
    (tmp_path / "square").write_text("x = [1, 2\nreturn [a, b\n")
    picture = tmp_path / "steer.svg"
    result = run(
        "steer", "bundled", "--towards", tmp_path / "round", "--away", tmp_path / "square",
        "--site", "resid_post.3", "--target", ")", "--prompt", "names = [c, d", "--strengths",
        "0,4", "--random", "1", "--tokens", "200", "--new-tokens", "2", "--corpus", texts,
        "--out", picture, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(SteerResult).validate_python(content, strict=True, extra="forbid")
    first, second = content["points"]
    assert first["behaviour"] == content["unsteered"]
    assert first["cost"] == 1
    assert second["behaviour"] != first["behaviour"]
    assert picture.read_text("utf-8").startswith("<svg")


def test_what_is_missing_is_said(tmp_path: Path, brackets: Path):
    out = tmp_path / "steer.html"
    nothing = run("steer", "bundled", "--target", ")", "--prompt", "x", "--out", out)
    assert nothing.exit_code == 1
    assert "must be told what to steer" in nothing.stderr
    empty = run("steer", "bundled", "--target", ")", "--out", out)
    assert "at least one prompt" in empty.stderr
    target = run(
        "steer", "bundled", "--target", "", "--prompt", "x", "--towards", brackets, "--away",
        brackets, "--site", "resid_post.0", "--out", out,
    )  # fmt: skip
    assert "A target must be a text" in target.stderr
    picture = run("patch", "bundled", "--pairs", brackets, "--out", tmp_path / "patch.pdf")
    assert "The ending of --out must be one of: .html, .svg, .png" in picture.stderr
    unknown = run("patch", "bundled", "--pairs", brackets, "--parts", "resid_pots", "--out", out)
    assert unknown.exit_code == 1
    assert "Role must be one of" in unknown.stderr
