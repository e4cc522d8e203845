"""`modelassay convert`: between formats and back, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli.convert import Written
from modelassay.cli.convert_schemas import (
    ConvertAllResult,
    ConvertCrossLayerResult,
    ConvertListResult,
    ConvertResult,
)
from modelassay.cli.main import app
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.cross_layer_storage import save_cross_layer
from modelassay.decompositions.decoder_rows import HeldRows
from modelassay.decompositions.formats.registry import (
    CROSS_LAYER_WRITERS,
    READERS,
    WRITERS,
    read_cross_layer,
    read_dictionary,
)
from modelassay.decompositions.recipes import BatchTopK, TopK
from modelassay.decompositions.sparsifiers import JumpReLUActivation
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
    assert set(Written.__args__) == {*WRITERS, *CROSS_LAYER_WRITERS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mirror's repository with two hookpoints."""
    for layer in (0, 1):
        ours = build(TopK(width=32, k=4), tmp_path / f"ours{layer}")
        place = tmp_path / "mirror" / "org" / "saes" / f"layers.{layer}"
        assert run("convert", ours, place, "--to", "sparsify").exit_code == 0
    return tmp_path / "mirror"


def test_what_is_in_a_repository_is_listed(folder: Path):
    arguments = ("convert", "--list", "sparsify:org/saes", "--mirror", folder)
    names = ["sparsify:org/saes/layers.0", "sparsify:org/saes/layers.1"]
    assert run(*arguments).stdout.split() == names
    content = json.loads(run(*arguments, "--json").stdout)
    TypeAdapter(ConvertListResult).validate_python(content, strict=True, extra="forbid")
    assert content["names"] == names


def test_all_of_a_repository_are_converted_into_folders(folder: Path, tmp_path: Path):
    arguments = ("convert", "--all", "sparsify:org/saes", tmp_path / "out", "--mirror", folder)
    result = run(*arguments, "--to", "saelens", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(ConvertAllResult).validate_python(content, strict=True, extra="forbid")
    for layer, converted in enumerate(content["converted"]):
        assert converted["folder"] == str(tmp_path / "out" / f"layers.{layer}")
        assert converted["reads"] == f"resid_post.{layer}"
        assert read_dictionary(f"saelens:{converted['folder']}").reads == Site("resid_post", layer)


def test_one_that_is_named_by_its_repository_is_converted(folder: Path, tmp_path: Path):
    name = "sparsify:org/saes/layers.1"
    assert run("convert", name, tmp_path / "sae", "--mirror", folder).exit_code == 0
    facts = read_dictionary(str(tmp_path / "sae")).provenance.facts
    assert facts["repository"] == "org/saes"


def test_one_lost_among_many_is_named_and_nothing_written(folder: Path, tmp_path: Path):
    (folder / "org" / "saes" / "layers.0" / "sae.safetensors").unlink()
    result = run("convert", "--all", "sparsify:org/saes", tmp_path / "out", "--mirror", folder)
    assert result.exit_code == 1
    assert "got none at 'layers.0/sae.safetensors'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_listing_and_converting_all_exclude_each_other(ours: Path):
    result = run("convert", "--list", "--all", ours)
    assert result.exit_code == 2
    assert "must be given without --all" in result.stderr


@pytest.fixture
def across(tmp_path: Path) -> Path:
    """A folder with a transcoder across three layers."""
    draw = torch.Generator().manual_seed(3)
    sources = [
        Source(
            reads=Site("mlp_in", i),
            W_enc=torch.randn(6, 10, generator=draw),
            b_enc=torch.randn(10, generator=draw),
            activation=JumpReLUActivation(torch.rand(10, generator=draw)),
            decoders=HeldRows(weight=torch.randn(10, 3 - i, 6, generator=draw)),
        )
        for i in range(3)
    ]
    transcoder = CrossLayerTranscoder(
        sources=sources,
        writes=[Site("mlp_out", i) for i in range(3)],
        b_dec=torch.randn(3, 6, generator=draw),
    )
    save_cross_layer(transcoder, tmp_path / "across")
    return tmp_path / "across"


def test_a_transcoder_across_layers_goes_there_and_back(across: Path, tmp_path: Path):
    there, back = tmp_path / "there", tmp_path / "back"
    result = run(
        "convert", "--cross-layer", across, there, "--to", "circuit_tracer", "--model", "org/m",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    TypeAdapter(ConvertCrossLayerResult).validate_python(content, strict=True, extra="forbid")
    assert content["widths"] == [10, 10, 10]
    assert content["difference"] < 1e-6
    assert content["reads"] == ["mlp_in.0", "mlp_in.1", "mlp_in.2"]
    assert "model_name: org/m" in (there / "config.yaml").read_text()
    result = run("convert", "--cross-layer", f"circuit_tracer:{there}", back)
    assert "of mlp_in.0 to mlp_in.2 is at" in result.stdout
    before, after = (read_cross_layer(f"modelassay:{folder}") for folder in (across, back))
    x = {site: torch.randn(9, 6) for site in before.reads}
    for site, expected in before(x).items():
        torch.testing.assert_close(after(x)[site], expected)


def test_a_transcoder_across_layers_has_no_other_form(across: Path, ours: Path, tmp_path: Path):
    result = run("convert", "--cross-layer", across, tmp_path / "out", "--to", "saelens")
    assert result.exit_code == 1
    assert "A format of cross-layer transcoders must be one of" in result.stderr
    result = run("convert", ours, tmp_path / "out", "--to", "circuit_tracer")
    assert "A format to write must be one of" in result.stderr
    result = run("convert", "--cross-layer", "--all", across, tmp_path / "out")
    assert result.exit_code == 2
