"""`modelassay probe`: what it writes and prints, and what it refuses."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli.main import app
from modelassay.cli.probe_schemas import ProbeResult

SOURCE = (
    'def area{n}(width, height):\n    """The area of a thing {n}."""\n    return width * {n}\n\n\n'
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(12):
        text = "".join(SOURCE.format(n=10 * number + n) for n in range(6))
        (folder / f"file{number}.py").write_text(text, "utf-8")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["probe", "bundled", *map(str, arguments)])


def prompts(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def test_a_concept_is_probed_and_a_page_written(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = run(
        "--corpus", corpus, "--concept", "docstring", "--sites", "resid_post.1", "--per-class", 60,
        "--no-description-length", "--out", out, "--method", "mass_mean", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    TypeAdapter(ProbeResult).validate_python(content, strict=True, extra="forbid")
    assert content["sites"][0]["used"] == "not tested"
    assert content["sites"][0]["auroc"]["value"] > 0.7
    assert {"embedding", "null twin", "bag of tokens"} <= {
        control["name"] for control in content["sites"][0]["controls"]
    }
    page = (out / "probes.html").read_text("utf-8")
    assert "beyond every control" in page
    assert "cannot be drawn" not in page
    assert (out / "directions.safetensors").is_file()
    again = run("--corpus", corpus, "--concept", "docstring", "--per-class", 60, "--out", out)
    assert again.exit_code == 1
    assert "--force" in again.output


def test_prompts_with_continuations_are_tested_causally(tmp_path: Path):
    rows = [
        {
            "text": f"def area{n}(width):\n    {word}", "label": word, "group": f"area{n}",
            "type": str(n % 5), "continuations": [" width", " Error"],
        }
        for n in range(24)
        for word in ("return", "raise")
    ]  # fmt: skip
    path = prompts(tmp_path / "rows.jsonl", rows)
    result = run(
        "--prompts", path, "--sites", "resid_post.2", "--no-description-length",
        "--method", "mass_mean", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    site = json.loads(result.stdout)["sites"][0]
    assert [effect["name"] for effect in site["effects"]] == ["push", "ablate", "erase"]
    assert json.loads(result.stdout)["classes"] == ["raise", "return"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}], "must be a JSON object with text and label; got line 1"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": 1}], "at least two classes; got only"),
        (
            [{"text": "a", "label": 1, "type": "x"}, {"text": "b", "label": 2}],
            "Either every prompt or none must have 'type'; got it in 1 of 2",
        ),
        (
            [{"text": "a", "label": n, "continuations": ["x", "y"]} for n in range(3)],
            "Continuations must be two, for two classes; got 3 classes",
        ),
    ],
)
def test_bad_prompts_are_refused_in_one_line(tmp_path: Path, rows: list[dict], message: str):
    result = run("--prompts", prompts(tmp_path / "rows.jsonl", rows), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output


def test_an_unknown_concept_is_refused_with_near_misses(corpus: Path, tmp_path: Path):
    result = run("--corpus", corpus, "--concept", "docstrings", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "Did you mean 'docstring'" in result.output
