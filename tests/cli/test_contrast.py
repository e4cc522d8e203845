"""`modelassay examples` and `modelassay contrast`, on the bundled model and a twin trained here."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from modelassay.cli.contrast_schemas import ContrastResult, ExamplesResult
from modelassay.cli.main import app
from modelassay.cli.units import parse_numbers
from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.streaming_statistics import load_statistics
from modelassay.subjects import bundled

MODEL = Path(bundled.__file__).parent / "python_llama"
STORY = "Once upon a time there was a little dog. The dog was very happy and ran to the park. "
CODE = "def total(values):\n    result = 0\n    for value in values:\n        result += value\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def checked(result: Result, schema: type) -> dict:
    assert result.exit_code == 0, result.output
    return TypeAdapter(schema, config=None).validate_python(
        json.loads(result.stdout), strict=True, extra="forbid"
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> tuple[Path, Path]:
    """Sixteen texts of code, and as many stories."""
    folder = tmp_path_factory.mktemp("texts")
    for name, text in (("code", CODE), ("stories", STORY)):
        (folder / name).mkdir()
        for number in range(16):
            # Each begins elsewhere, so that no two are alike.
            (folder / name / f"{number:02}.txt").write_text((text * 6)[3 * number :])
    return folder / "code", folder / "stories"


@pytest.fixture(scope="module")
def twin(tmp_path_factory) -> Path:
    """The bundled model after some steps on stories."""
    folder = tmp_path_factory.mktemp("twin")
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer(STORY * 4, return_tensors="pt")["input_ids"][:, :96]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    first, last = 0.0, 0.0
    for _ in range(12):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = loss.detach().item()
        first = first or last
    assert last < first
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_examples_write_a_page_the_documented_json_and_statistics(texts, tmp_path):
    directions = torch.randn(3, 128, generator=generator(0))
    out = tmp_path / "out"
    width = json.loads((MODEL / "config.json").read_text())["hidden_size"]
    save_file({"probe": directions[:, :width].contiguous()}, tmp_path / "directions.safetensors")
    found = checked(
        run(
            "examples", "bundled", "--site", "resid_post.1", "--tokens", 2000, "--out", out,
            "--directions", tmp_path / "directions.safetensors",
            "--corpus", texts[0], "--pairs", "--top", 3, "--json",
        ),
        ExamplesResult,
    )  # fmt: skip
    assert [unit["name"] for unit in found["units"]] == ["probe 0", "probe 1", "probe 2"]
    # Above its mean on about half of the tokens.
    assert all(0.2 < unit["rate"] < 0.8 for unit in found["units"])
    assert all(len(unit["strongest_tokens"]) == 3 for unit in found["units"])
    assert len(found["pairs"]) == 3
    page = (out / "examples.html").read_text("utf-8")
    assert "Silent: nearest to what it is read with" in page
    assert "could not be made" not in page
    assert load_statistics(out / "statistics.safetensors").n_tokens == found["tokens"]
    again = run("examples", "bundled", "--corpus", texts[0], "--out", out)
    assert again.exit_code == 1
    assert "--force" in again.output


def test_code_and_stories_are_told_apart_by_units_that_replicate(texts, tmp_path):
    code, stories = texts
    found = checked(
        run(
            "contrast", "bundled", "--site", "resid_post.1", "--units", "0:40", "--a", code,
            "--b", stories, "--out", tmp_path / "out", "--json",
        ),
        ContrastResult,
    )  # fmt: skip
    contrast = found["contrast"]
    assert (contrast["a"], contrast["b"], contrast["units"]) == ("code", "stories", 40)
    assert len(contrast["discoveries"]) > 5
    assert contrast["replicated"]["low"] > 0.5
    assert found["change"] is None
    assert "Discoveries" in (tmp_path / "out" / "contrast.html").read_text("utf-8")


def test_a_twin_differs_and_the_same_model_does_not(twin, texts, tmp_path):
    code, stories = texts
    common = (
        "contrast", "bundled", "--site", "resid_post.1", "--units", "0:40", "--a", stories,
        "--b", code, "--json", "--tuned",
    )  # fmt: skip
    same = checked(run(*common, "bundled", "--out", tmp_path / "same"), ContrastResult)
    assert same["change"]["changed"] == same["contrast"]["discoveries"] == []
    assert same["contrast"]["replicated"]["value"] is None
    tuned = checked(run(*common, twin, "--out", tmp_path / "tuned"), ContrastResult)
    assert len(tuned["change"]["changed"]) > 5
    assert len(tuned["contrast"]["discoveries"]) > 0
    page = (tmp_path / "tuned" / "contrast.html").read_text("utf-8")
    assert "Raised responses" in page
    assert "could not be made" not in page


def test_what_is_asked_amiss_is_said_in_a_line(texts):
    nothing = run("contrast", "bundled")
    assert nothing.exit_code == 1
    assert "must have two sides" in nothing.output
    half = run("contrast", "bundled", "--a", texts[0])
    assert half.exit_code == 1
    assert "must be --a and --b" in half.output
    for text in ("", "5:", "3,9", "x"):
        with pytest.raises(ValueRangeError, match="numbers below 5"):
            parse_numbers(text, 5)
    assert parse_numbers("0:2,4,1", 5) == [0, 1, 4]
    assert parse_numbers("3:", 5) == [3, 4]
