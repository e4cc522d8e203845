"""`modelassay history`: what it writes and prints, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner, Result

from modelassay.cli.history_results import checkpoint_folders, name_of
from modelassay.cli.history_schemas import HistoryResult
from modelassay.cli.main import app
from modelassay.core.randomness import generator
from modelassay.subjects.load import BUNDLED

SOURCE = (
    "def area{n}(width, height):\n    # The area {n}\n"
    '    text = "a b c" + width\n    return [width, {n}]\n\n\n'
)
QUICK = ("--items", 160, "--tokens", 2000, "--sites", "resid_post.0")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a tiny model with the bundled model's tokenizer."""
    folder = tmp_path_factory.mktemp("twin") / "checkpoints"
    config = LlamaConfig(
        vocab_size=2048, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    for step in (0, 100):
        model, g = LlamaForCausalLM(config), generator(step)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=g) / 4)
        model.save_pretrained(folder / f"step-{step:06d}")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(BUNDLED / name, folder / f"step-{step:06d}")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(16):
        text = "".join(SOURCE.format(n=10 * number + n) for n in range(3))
        (folder / f"file{number}.py").write_text(text, "utf-8")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["history", *map(str, arguments)])


def test_checkpoints_are_probed_and_a_page_and_a_picture_written(
    run_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "out"
    result = run(
        run_folder, "--corpus", corpus, "--concepts", "in string,bracket depth,in loop",
        *QUICK, "--out", out, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    TypeAdapter(HistoryResult).validate_python(content, strict=True, extra="forbid")
    assert content["steps"] == [0, 100]
    assert content["null"] == "the model at step 0"
    assert [concept["name"] for concept in content["concepts"]] == ["in string", "bracket depth"]
    assert content["missing"] == ["in loop: 0 tokens of a class, of 20 that are needed"]
    string = content["concepts"][0]
    assert string["score"]["value"] == string["scores"][0][1] > 0.5
    assert string["over_null"]["value"] == pytest.approx(
        string["scores"][0][1] - string["scores"][0][0], abs=1e-5
    )
    page = (out / "history.html").read_text("utf-8")
    assert "cannot be drawn" not in page
    assert (out / "history.svg").read_text("utf-8").startswith("<svg")
    assert json.loads((out / "history.json").read_text("utf-8"))["steps"] == [0, 100]
    again = run(run_folder, "--corpus", corpus, *QUICK, "--out", out)
    assert again.exit_code == 1
    assert "--force" in again.output


def test_labelled_prompts_take_the_place_of_concepts(run_folder: Path, tmp_path: Path):
    rows = [
        {"text": f"def area{n}(x):\n    {word} x{n % 4}", "label": word, "group": f"area{n}"}
        for n in range(40)
        for word in ("return", "raise")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    result = run(
        run_folder / "step-000100", "--prompts", path, *QUICK, "--out", tmp_path / "out", "--json"
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    (concept,) = content["concepts"]
    assert concept["name"] == "return"
    assert concept["score"]["value"] > 0.9
    assert content["null"] == "the last model with weights drawn anew"
    assert concept["finding"] == "not beyond the null twin"  # the word itself was just read


def test_checkpoint_folders_are_sorted_by_the_step_in_their_names(run_folder: Path):
    found = checkpoint_folders([run_folder])
    assert list(found) == [0, 100]
    assert name_of(found[100]) == f"{run_folder.parent.name}/step-000100"
    assert list(checkpoint_folders([found[100], found[0]])) == [0, 100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["nowhere"], "Folder of checkpoints"),
        (["last"], "must end in their steps"),
        (["step-000100", "copy-100"], "must end in their steps, each another"),
    ],
)
def test_bad_checkpoints_are_refused_in_one_line(
    run_folder: Path, tmp_path: Path, change: list[str], message: str
):
    for name in ("last", "copy-100"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", "utf-8")
    (tmp_path / "step-000100").symlink_to(run_folder / "step-000100")
    result = run(*(tmp_path / name for name in change), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output


def test_an_unknown_concept_is_refused_with_near_misses(run_folder: Path, tmp_path: Path):
    result = run(run_folder, "--concepts", "in strings", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "Did you mean 'in string'" in result.output
