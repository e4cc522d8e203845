"""`modelassay lens`: show, train, attribute, heads."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from modelassay.cli import lens_schemas
from modelassay.cli.main import app

TEXT = "def read(path):\n    return"


def run(*arguments: str):
    return CliRunner().invoke(app, ["lens", *arguments])


def test_a_text_is_shown_as_a_page_and_as_a_picture(tmp_path: Path):
    page, picture = tmp_path / "lens.html", tmp_path / "lens.svg"
    done = run("show", TEXT, "--out", str(page), "--json", "--count", "3")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    TypeAdapter(lens_schemas.LensShowResult).validate_python(result)
    assert result["layers"] == ["embedding", "0", "1", "2", "3", "4", "5"]
    assert len(result["lenses"][0]["kl"][0]) == len(result["tokens"])
    assert result["lenses"][0]["rank"][-1][-1] is None
    assert page.read_text("utf-8").startswith("<!doctype html>")
    done = run("show", TEXT, "--out", str(picture), "--colour", "kl")
    assert "KL from the final prediction in nats: embedding" in done.stdout
    assert picture.read_text("utf-8").startswith("<svg")
    again = run("show", TEXT, "--out", str(picture))
    assert again.exit_code == 1
    assert "--force" in again.output


def test_a_lens_is_trained_shown_and_measured(tmp_path: Path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        body = "\n".join(f"def f{i}(x):\n    return x + {i * number}" for i in range(20))
        (texts / f"{number}.py").write_text(body)
    out = tmp_path / "lens"
    small = ["--corpus", str(texts), "--out", str(out), "--heldout-tokens", "500"]
    done = run("train", "bundled", *small, "--steps", "6", "--tokens-per-step", "512", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    TypeAdapter(lens_schemas.LensTrainResult).validate_python(result)
    assert all(each["kl"] < each["kl_logit"] for each in result["layers"][:-1])
    assert sorted(path.name for path in out.iterdir()) == ["tuned.safetensors", "tuned_kl.svg"]
    again = run("train", "bundled", *small)
    assert again.exit_code == 1
    assert "--force" in again.output
    done = run("train", "bundled", *small, "--kind", "jacobian", "--prompts", "2")
    assert done.exit_code == 0, done.output
    assert "jacobian lens of bundled" in done.stdout
    page = tmp_path / "page.html"
    kinds = f"logit,tuned,{out / 'jacobian.safetensors'}"
    done = run("show", TEXT, "--lens", kinds, "--lenses", str(out), "--out", str(page))
    assert done.exit_code == 0, done.output
    assert "Jacobian lens, KL" in done.stdout


def test_a_logit_is_attributed():
    done = run("attribute", "import os\nimport ", "--target", "sys", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    TypeAdapter(lens_schemas.LensAttributionResult).validate_python(result)
    assert sum(part["logit"] for part in result["parts"]) == pytest.approx(
        result["logit"], abs=1e-2
    )
    shown = run("attribute", "import os\nimport ", "--target", "sys", "--contrast", "self")
    assert "logit of 'sys' against 'self'" in shown.stdout
    assert "the logit, which they sum to" in shown.stdout
    unknown = run("attribute", "import os", "--target", "no such token")
    assert unknown.exit_code == 1
    assert "A token of this model must be one of" in unknown.output


def test_heads_are_listed():
    done = run("heads", "bundled", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    TypeAdapter(lens_schemas.LensHeadsResult).validate_python(result)
    assert [each["kind"] for each in result["best"]] == [
        "previous_token", "induction", "duplicate_token",
    ]  # fmt: skip


def test_what_is_not_there_is_named(tmp_path: Path):
    missing = run("show", TEXT, "--lens", "tuned", "--lenses", str(tmp_path))
    assert missing.exit_code == 1
    assert "Fit one with `modelassay lens train`" in missing.output
    suffix = run("show", TEXT, "--out", str(tmp_path / "lens.pdf"))
    assert suffix.exit_code == 1
    assert ".html, .svg, .png" in suffix.output
    empty = run("show", "", "--out", str(tmp_path / "lens.html"))
    assert empty.exit_code == 1
    assert "at least one token" in empty.output
