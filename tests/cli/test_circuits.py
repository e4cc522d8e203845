"""`modelassay circuits`, on a small model made in process."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli import circuits_schemas
from modelassay.cli.main import app
from modelassay.core.randomness import generator
from modelassay.observe.visualize.png import to_png

MODEL = """
import torch
from torch import nn
from modelassay.observe.visualize.image_input import UNIT

def build():
    g = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU())
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g) * 0.3
    return layers.eval(), UNIT
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["circuits", *map(str, arguments)])


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model.py").write_text(MODEL)
    return f"{tmp_path / 'model.py'}:build"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(3):
        photograph = torch.rand(3, 30, 41, generator=generator(seed))
        (folder / f"{seed}.png").write_bytes(to_png(photograph))
    return folder


def as_described(result: Result, schema: type):
    assert result.exit_code == 0, result.output
    return TypeAdapter(schema).validate_python(json.loads(result.stdout), strict=True)


def test_weights_as_a_page_and_as_json(model, photographs, tmp_path):
    out = tmp_path / "page.html"
    found = as_described(
        run("weights", model, "--from", "1", "--layer", "3", "--channels", "0,2",
            "--images", photographs, "--out", out, "--json"),
        circuits_schemas.CircuitWeightsResult,
    )  # fmt: skip
    assert [unit["channel"] for unit in found["units"]] == [0, 2]
    assert (found["layers"], found["kernel"]) == (1, [3, 3])
    assert len(found["units"][0]["inputs"]) == 6
    assert 0 < found["units"][0]["correlation"] <= 1
    page = out.read_text("utf-8")
    assert "Predicted and real changes between images correlate by" in page
    assert "data:image/svg+xml" in page
    again = run("weights", model, "--layer", "3", "--out", out)
    assert again.exit_code == 1
    assert "The output must not exist yet" in again.output


def test_filters_of_the_first_layer_are_shown_in_colours(model, tmp_path):
    result = run(
        "weights", model, "--layer", "0", "--channels", "all", "--out", tmp_path / "p.html"
    )
    assert result.exit_code == 0, result.output
    assert "input -> 0 of" in result.stdout
    assert "As colours" in (tmp_path / "p.html").read_text("utf-8")


def test_tuning_as_a_page_and_as_json(model, tmp_path):
    out = tmp_path / "page.html"
    found = as_described(
        run("tuning", model, "--layer", "1", "--families", "orientation,colour", "--twins", 1,
            "--size", 32, "--out", out, "--json"),
        circuits_schemas.CircuitTuningResult,
    )  # fmt: skip
    assert [each["name"] for each in found["families"]] == ["orientation", "colour contrast"]
    assert len(found["families"][0]["index"]) == 6
    page = out.read_text("utf-8")
    assert "of twins" in page
    assert "Where no channel is supported, none was found" in page


def test_universality_as_a_page_and_as_json(model, photographs, tmp_path):
    out = tmp_path / "page.html"
    found = as_described(
        run("universality", model, model, "--layer", "1", "--images", photographs, "--size", 32,
            "--out", out, "--json"),
        circuits_schemas.CircuitUniversalityResult,
    )  # fmt: skip
    assert found["assigned"] == list(range(6))
    assert found["cka"] == pytest.approx(1)
    assert "above the 95th percentile of both nulls" in out.read_text("utf-8")


def test_what_is_not_there_is_named(model, tmp_path):
    wrong = run("weights", model, "--from", "3", "--layer", "0", "--out", tmp_path / "p.html")
    assert wrong.exit_code == 1
    assert "Something must lead from the source to the target" in wrong.output
    family = run(
        "tuning", model, "--layer", "1", "--families", "curvy", "--out", tmp_path / "p.html"
    )
    assert family.exit_code == 1
    assert "A family must be one of" in family.output
