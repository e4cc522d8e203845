"""`modelassay atlas`, on a small model made in process."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli.atlas_making import read_class_names
from modelassay.cli.atlas_schemas import AtlasResult
from modelassay.cli.main import app
from modelassay.core.randomness import generator
from modelassay.observe.visualize.png import to_png

MODEL = """
import torch
from torch import nn
from modelassay.observe.visualize.image_input import UNIT

def build():
    with torch.random.fork_rng():
        layers = nn.Conv2d(3, 6, 5, stride=2), nn.ReLU()
        head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        return nn.Sequential(*layers, *head).requires_grad_(False), UNIT

def headless():
    return build()[0][:2], UNIT
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "images").mkdir()
    for seed in range(8):
        picture = torch.rand(3, 30, 40, generator=generator(seed))
        (tmp_path / "images" / f"{seed}.png").write_bytes(to_png(picture))
    (tmp_path / "names.txt").write_text("n01440764 tench, Tinca tinca\ncat\ndog\n")
    return tmp_path


def run(place: Path, *more: object, function: str = "build") -> Result:
    arguments = [
        "atlas", f"{place / 'model.py'}:{function}", "--layer", "1", "--images", place / "images",
        "--grid", 3, "--image-size", 20, "--size", 16, "--steps", 2, *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_page_names_classes_and_prints_the_documented_json(place):
    out = place / "atlas.html"
    result = run(place, "--class-names", place / "names.txt", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    found = TypeAdapter(AtlasResult).validate_python(
        json.loads(result.stdout), strict=True, extra="forbid"
    )
    assert (found["samples"], found["images"], found["remark"]) == (64, 8, "")
    named = {entry["name"] for cell in found["cells"] for entry in cell["classes"]}
    assert named <= {"tench", "cat", "dog"}
    page = out.read_text("utf-8")
    assert page.count('<li class="empty">') == 9 - len(found["cells"])
    assert f"{found['cells'][0]['samples']} samples · row" in page


def test_a_model_without_logits_gets_a_picture_and_a_remark(place):
    result = run(place, "--out", place / "atlas.png", function="headless")
    assert result.exit_code == 0, result.output
    assert "no classes are named: A classifier must return logits" in result.stdout
    assert (place / "atlas.png").read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_made_is_said_in_one_line(place):
    wrong = run(place, "--out", place / "atlas.pdf")
    assert wrong.exit_code == 1
    assert "must be written to .html or .png" in wrong.stderr
    (place / "empty").mkdir()
    empty = run(place, "--images", place / "empty", "--out", place / "atlas.png")
    assert empty.exit_code == 1
    assert "A folder of images" in empty.stderr


def test_names_of_classes_come_from_the_file_given_or_from_beside_the_model(place):
    module = torch.nn.Identity()
    assert read_class_names("x", module, place / "names.txt") == ["tench", "cat", "dog"]
    (place / "synset_words.txt").write_text("n00000001 first, one\n")
    assert read_class_names(str(place), module, None) == ["first"]
    assert read_class_names("x", module, None) == []
