"""`modelassay superposition`: list and run."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner

from modelassay.cli import superposition_schemas
from modelassay.cli.main import app
from modelassay.core.errors import CorruptFileError
from modelassay.observe.superposition.study import load_study


def run(*arguments: str):
    return CliRunner().invoke(app, ["superposition", *arguments])


def test_experiments_are_listed_with_their_questions():
    done = run("list", "--json")
    result = json.loads(done.stdout)
    TypeAdapter(superposition_schemas.SuperpositionListResult).validate_python(result)
    assert {"pentagon", "uniform", "phase_2_1", "absolute_100"} <= {
        entry["name"] for entry in result["experiments"]
    }


def test_an_experiment_is_run_drawn_and_kept(tmp_path: Path):
    out = tmp_path / "toys"
    done = run("run", "linear", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    TypeAdapter(superposition_schemas.SuperpositionRunResult).validate_python(result)
    # A linear model keeps as many features as it has dimensions.
    assert result["studies"][0]["rows"][0]["features represented"] == 5
    page = Path(result["page"]).read_text("utf-8")
    assert "data:image/svg+xml" in page
    study = load_study(out / "linear")
    torch.testing.assert_close(
        study.tensors["gram"], study.tensors["encoder"].mT @ study.tensors["encoder"]
    )
    again = run("run", "linear", "--out", str(out))
    assert again.exit_code == 1
    assert "--force" in again.output
    (out / "linear" / "study.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="must be a study"):
        load_study(out / "linear")


def test_an_unknown_experiment_is_refused_before_anything_is_written(tmp_path: Path):
    done = run("run", "pentagram", "--out", str(tmp_path / "toys"))
    assert done.exit_code == 1
    assert "Did you mean 'pentagon'" in done.output
    assert not (tmp_path / "toys").exists()
