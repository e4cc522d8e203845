"""`modelassay harvest` and `modelassay fit`, on the bundled model and one file of text."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from modelassay.cli import options as cli_options
from modelassay.cli.main import app
from modelassay.cli.schemas import FitResult, FitsResult, HarvestResult
from modelassay.decompositions.storage import load_decomposition
from modelassay.fitting import options as training_options

TEXT = argparse.__file__  # a hundred thousand characters that every Python has
HARVEST = ["harvest", "--sites", "resid_post.2,mlp_out.0", "--corpus", TEXT, "--tokens", "6000"]
FIT = ["fit", "--site", "resid_post.2", "--width", "24", "--k", "3", "--tokens", "8192"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("harvest") / "store"
    return folder, run(*HARVEST, "--out", folder, "--json")


@pytest.fixture(scope="module")
def fitted(store: tuple[Path, Result]) -> tuple[Path, Result]:
    folder = store[0].parent / "dictionary"
    return folder, run(*FIT, store[0], "--out", folder, "--json")


def test_harvest_prints_the_documented_json(store: tuple[Path, Result]):
    folder, result = store
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(HarvestResult).validate_python(content, strict=True, extra="forbid")
    assert content["sites"] == ["resid_post.2", "mlp_out.0"]
    assert content["directory"] == str(folder)


def test_fit_prints_the_documented_json(fitted: tuple[Path, Result]):
    folder, result = fitted
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(FitResult).validate_python(content, strict=True, extra="forbid")
    assert content["width"] == load_decomposition(folder).width == 24
    assert content["evidence"]["l0"]["value"] == 3


def test_a_finished_fit_leaves_no_checkpoint(fitted: tuple[Path, Result]):
    assert sorted(path.name for path in fitted[0].iterdir()) == [
        "config.json",
        "log.csv",
        "weights.safetensors",
    ]


def test_people_read_an_interval_and_a_null(store: tuple[Path, Result], tmp_path: Path):
    result = run(*FIT, store[0], "--out", tmp_path)
    assert "Explained variance: " in result.stdout
    assert "null" in result.stdout


def test_an_existing_output_is_not_overwritten(store: tuple[Path, Result]):
    before = (store[0] / "manifest.json").read_bytes()
    result = run(*HARVEST, "--out", store[0])
    assert result.exit_code == 1
    assert "Pass --force" in result.stderr
    assert (store[0] / "manifest.json").read_bytes() == before


def test_force_overwrites(fitted: tuple[Path, Result], tmp_path: Path):
    folder = shutil.copytree(fitted[0], tmp_path / "copy")
    before = (folder / "weights.safetensors").read_bytes()
    store = fitted[0].parent / "store"
    assert run(*FIT, store, "--out", folder, "--seed", "1", "--force").exit_code == 0
    assert (folder / "weights.safetensors").read_bytes() != before


def test_resume_of_a_finished_harvest_gives_the_same_result(store: tuple[Path, Result]):
    result = run(*HARVEST, "--out", store[0], "--resume", "--json")
    assert result.exit_code == 0
    first, again = json.loads(store[1].stdout), json.loads(result.stdout)
    assert first["tokens"] == again["tokens"]
    assert first["fingerprint"] == again["fingerprint"]


def test_an_unknown_site_is_refused_with_near_misses_and_writes_nothing(tmp_path: Path):
    result = run("harvest", "--sites", "resid_pots.2", "--corpus", TEXT, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "Did you mean 'resid_post'" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_site_of_a_layer_that_does_not_exist_is_refused(tmp_path: Path):
    result = run("harvest", "--sites", "resid_post.99", "--corpus", TEXT, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "resid_post.99" in result.stderr


def test_an_unknown_model_is_refused_with_near_misses(tmp_path: Path):
    result = run("harvest", "./bundeld", "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "./bundeld" in result.stderr


def test_a_corpus_that_is_not_there_is_refused(tmp_path: Path):
    result = run("harvest", "--corpus", tmp_path / "nowhere", "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path):
    result = run("fit", tmp_path, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "manifest.json" in result.stderr


def test_a_truncated_store_is_refused(store: tuple[Path, Result], tmp_path: Path):
    for path in store[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    result = run(*FIT, tmp_path, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "shard-00000.safetensors" in result.stderr


def test_an_output_that_is_a_file_is_refused(store: tuple[Path, Result], tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    result = run(*FIT, store[0], "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_fit_takes_the_options_of_training(store: tuple[Path, Result], tmp_path: Path):
    chosen = ["--optimizer", "signum", "--schedule", "cosine", "--initial-k", "12"]
    more = ["--normalisation", "whitening", "--precision", "auto", "--learning-rate", "0.002"]
    more += ["--dead-latents", "resample"]
    result = run(*FIT, store[0], "--out", tmp_path, *chosen, *more, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)["provenance"]["facts"]
    asked = {"optimizer": "signum", "schedule": "cosine", "initial_k": 12, "learning_rate": 0.002}
    assert facts.items() >= asked.items()
    assert (facts["normalisation"], facts["precision"]) == ("whitening", "float32")
    assert facts["dead_latents"] == "resample"
    assert run(*FIT, store[0], "--out", tmp_path / "x", "--optimizer", "sgd").exit_code == 2


@pytest.mark.parametrize(
    "name",
    [
        "OptimizerName",
        "ScheduleName",
        "Precision",
        "Normalisation",
        "DeadLatentPolicy",
        "BadBatchPolicy",
    ],
)
def test_choices_at_the_command_line_are_those_of_training(name: str):
    assert getattr(cli_options, name) == getattr(training_options, name)


def test_all_combinations_are_fitted_on_one_pass_into_a_folder_each(
    store: tuple[Path, Result], fitted: tuple[Path, Result], tmp_path: Path
):
    several = ["--site", "mlp_out.0", "--width", "32", "--bad-batches", "skip"]
    result = run(*FIT, *several, store[0], "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(FitsResult).validate_python(content, strict=True, extra="forbid")
    names = ["resid_post.2_w24", "resid_post.2_w32", "mlp_out.0_w24", "mlp_out.0_w32"]
    assert [entry["directory"] for entry in content["dictionaries"]] == [
        str(tmp_path / name) for name in names
    ]
    assert [entry["width"] for entry in content["dictionaries"]] == [24, 32, 24, 32]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "log.csv"}
    alone = load_file(fitted[0] / "weights.safetensors")
    together = load_file(tmp_path / names[0] / "weights.safetensors")
    assert all(torch.equal(tensor, together[name]) for name, tensor in alone.items())
    assert content["dictionaries"][0]["provenance"]["facts"]["skipped_rows"] == 0


def test_what_is_named_twice_is_refused_before_anything_is_written(
    store: tuple[Path, Result], tmp_path: Path
):
    result = run(*FIT, "--width", "24", store[0], "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "must be given once; got w24" in result.stderr
    result = run(*FIT, "--site", "resid_post.2", store[0], "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "each named once; got resid_post.2, resid_post.2" in result.stderr
    assert not (tmp_path / "new").exists()
