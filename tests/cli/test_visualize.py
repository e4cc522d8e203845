"""`modelassay visualize`, on small models made in process."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification
from typer.testing import CliRunner, Result

from modelassay.cli.main import app
from modelassay.cli.visualize_schemas import VisualizeResult
from modelassay.cli.visualizing import load_image_model, parse_channels
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.visualize.png import to_png

MODEL = """
import torch
from torch import nn
from modelassay.observe.visualize.image_input import UNIT

def build():
    with torch.random.fork_rng():
        return nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU()).eval(), UNIT
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["visualize", *map(str, arguments)])


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model.py").write_text(MODEL)
    return f"{tmp_path / 'model.py'}:build"


def test_a_page_with_controls_and_the_documented_json(model, tmp_path):
    (tmp_path / "photographs").mkdir()
    for seed in range(3):
        photograph = torch.rand(3, 30, 40, generator=generator(seed))
        (tmp_path / "photographs" / f"{seed}.png").write_bytes(to_png(photograph))
    result = run(
        model, "--layer", "1", "--channels", "0:3", "--size", 24, "--steps", 3,
        "--natural", tmp_path / "photographs", "--out", tmp_path / "page.html", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = TypeAdapter(VisualizeResult, config=None).validate_python(
        json.loads(result.stdout), strict=True, extra="forbid"
    )
    assert [entry["target"] for entry in found["images"]] == [f"1 channel {i}" for i in range(3)]
    assert found["images"][0]["natural"] is not None
    assert {entry["image"] for entry in found["images"][0]["examples"]} == {
        "0.png", "1.png", "2.png",
    }  # fmt: skip
    assert len(found["controls"]["untrained"]) == len(found["controls"]["random_direction"]) == 3
    assert found["settings"]["steps"] == 3
    assert "<!doctype html>" in (tmp_path / "page.html").read_text("utf-8")
    again = run(model, "--layer", "1", "--out", tmp_path / "page.html")
    assert again.exit_code == 1
    assert "The output must not exist yet" in again.output


def test_a_sheet_and_a_folder(model, tmp_path):
    options = (model, "--layer", "1", "--size", 24, "--steps", 2)
    sheet = run(*options, "--channels", "4,5", "--facets", 2, "--out", tmp_path / "sheet.png")
    assert sheet.exit_code == 0, sheet.output
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    folder = run(*options, "--kind", "layer", "--out", tmp_path / "folder")
    assert "1 all channels" in folder.stdout
    assert load_file(tmp_path / "folder" / "images.safetensors")["images"].shape[0] == 1


def test_a_vision_transformer_of_hugging_face_has_its_size_and_normalisation(tmp_path):
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, num_labels=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        ViTForImageClassification(config).save_pretrained(tmp_path)
    described = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    _, image_input = load_image_model(str(tmp_path))
    assert (image_input.size, image_input.mean) == ((32, 32), (0.5, 0.5, 0.5))
    result = run(
        tmp_path, "--layer", "classifier", "--channels", "all", "--size", 40, "--steps", 2,
        "--out", tmp_path / "sheet.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no rectifier was found" in result.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0:3", [0, 1, 2]), ("3,7", [3, 7]), ("8:", [8, 9]), ("0:2,9", [0, 1, 9]), (":2", [0, 1])],
)
def test_channels_are_read_as_typed(text, expected):
    assert parse_channels(text, 10) == expected
    assert parse_channels("all", 3) == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "a", "3:x", "5:5", "-1"])
def test_channels_that_cannot_be_read_are_named(text):
    with pytest.raises(ValueRangeError, match="must read like 0:16"):
        parse_channels(text, 10)


def test_models_that_are_not_there_are_named(model, tmp_path):
    with pytest.raises(UnknownNameError, match=r"must be one of: UNIT, build; got 'bild'"):
        load_image_model(model.replace("build", "bild"))
    with pytest.raises(UnknownNameError, match="A Python file"):
        load_image_model(f"{tmp_path}/absent.py:build")
    with pytest.raises(UnknownNameError, match="A model of images"):
        load_image_model(f"{tmp_path}/absent")
