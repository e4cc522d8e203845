"""`modelassay convert`: between formats and back, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli.convert import Written
from modelassay.cli.main import app
from modelassay.cli.schemas import ConvertResult
from modelassay.decompositions.formats.registry import READERS, WRITERS, read_dictionary
from modelassay.decompositions.recipes import BatchTopK, TopK
from modelassay.subjects.site import Site


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def build(recipe, folder: Path) -> Path:
    source = torch.Generator().manual_seed(1)
    dictionary = recipe.build(8, 8, torch.ones(8), source, Site("resid_post", 2))
    dictionary.save(folder)
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return build(TopK(width=32, k=4), tmp_path / "ours")


def test_there_and_back_the_forward_pass_stays(ours: Path, tmp_path: Path):
    name = str(ours)
    for to in ("saelens", "sparsify", "dictionary_learning", "modelassay"):
        place = tmp_path / to / "layers.2"
        result = run("convert", name, place, "--to", to)
        assert result.exit_code == 0, result.stderr
        assert f"is at {place}, as {to}" in result.stdout
        name = f"{to}:{place}"
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    before, after = read_dictionary(str(ours)), read_dictionary(name)
    torch.testing.assert_close(after(x), before(x))
    assert after.reads == Site("resid_post", 2)


def test_stdout_holds_the_documented_json(ours: Path, tmp_path: Path):
    result = run("convert", ours, "--out", tmp_path / "sae", "--to", "saelens", "--json")
    content = json.loads(result.stdout)
    TypeAdapter(ConvertResult).validate_python(content, strict=True, extra="forbid")
    assert (content["width"], content["reads"], content["difference"]) == (32, "resid_post.2", 0)


def test_the_models_name_is_kept_where_there_is_a_place_for_it(ours: Path, tmp_path: Path):
    run("convert", ours, tmp_path / "sae", "--to", "saelens", "--model", "gpt2")
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert config["metadata"]["model_name"] == "gpt2"


@pytest.mark.parametrize("places", [[], ["a", "--out", "b"]])
def test_the_place_must_be_given_once(places: list[str], ours: Path):
    result = run("convert", ours, *places)
    assert result.exit_code == 2
    assert "must be given once, as TO or with --out" in result.stderr


def test_what_is_there_is_not_overwritten(ours: Path, tmp_path: Path):
    arguments = ("convert", ours, tmp_path / "sae", "--to", "sparsify")
    assert run(*arguments).exit_code == 0
    again = run(*arguments)
    assert again.exit_code == 1
    assert "must be new" in again.stderr
    assert run(*arguments, "--force").exit_code == 0


def test_what_a_format_cannot_express_is_refused_in_one_line(tmp_path: Path):
    source = build(BatchTopK(width=32, k=4), tmp_path / "ours")
    result = run("convert", source, tmp_path / "sae", "--to", "sparsify")
    assert result.exit_code == 1
    assert "must be topk or groupmax to have a form in sparsify; got batchtopk" in result.stderr
    assert not (tmp_path / "sae").exists()


def test_an_unknown_format_suggests_the_nearest(tmp_path: Path):
    result = run("convert", "gemma_scop:somewhere", tmp_path / "sae")
    assert result.exit_code == 1
    assert "Did you mean 'gemma_scope'" in result.stderr


def test_the_help_names_every_format():
    text = " ".join(run("convert", "--help").stdout.split())
    assert all(name in text for name in READERS)
    assert Written.__args__ == ("saelens", "dictionary_learning", "sparsify", "modelassay")
    assert set(Written.__args__) == set(WRITERS)
