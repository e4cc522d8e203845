"""Matching pursuit in SAELens' layout, whose own numbers `test_peers_fixtures` compares with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.saelens import read_saelens, write_saelens
from modelassay.decompositions.recipes import MatchingPursuit, OrthogonalMatchingPursuit
from modelassay.decompositions.residual_pursuit import ResidualPursuitActivation

FIXTURES = Path(__file__).parent / "fixtures/peers/saelens"
PURSUITS = sorted(path.name for path in FIXTURES.glob("*matching_pursuit*"))
RECIPE = MatchingPursuit(width=20, k=4)


def ours(recipe: MatchingPursuit | OrthogonalMatchingPursuit = RECIPE) -> Dictionary:
    return recipe.build(8, 8, torch.arange(8.0), generator(0), None)


def test_every_rule_for_ending_is_among_the_fixtures():
    rules = {
        (activation.k, float(activation.residual) > 0, activation.ends_at_repeats)
        for name in PURSUITS
        for activation in [read_saelens(FIXTURES / name).activation]
        if isinstance(activation, ResidualPursuitActivation)
    }
    assert rules == {(12, True, True), (3, False, False), (9, True, False), (5, True, True)}


@pytest.mark.parametrize("name", PURSUITS)
def test_what_is_written_again_has_the_same_codes_and_config(name: str, tmp_path: Path):
    dictionary = read_saelens(FIXTURES / name)
    write_saelens(dictionary, tmp_path)
    x = load_file(FIXTURES / name / "expected.safetensors")["x"]
    again = read_saelens(tmp_path)
    assert torch.equal(again.encode(x).dense(), dictionary.encode(x).dense())
    assert load_file(tmp_path / "sae_weights.safetensors").keys() == {"W_dec", "b_dec"}


def test_a_pursuit_of_ours_becomes_rounds_without_another_end(tmp_path: Path):
    dictionary = ours()
    write_saelens(dictionary, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "matching_pursuit"
    assert (config["max_iterations"], config["residual_threshold"]) == (4, 0.0)
    assert config["stop_on_duplicate_support"] is False
    x = 3 * torch.randn(50, 8, generator=generator(1))
    codes = read_saelens(tmp_path).encode(x).dense()
    torch.testing.assert_close(codes, dictionary.encode(x).dense(), atol=1e-5, rtol=1e-5)


def test_what_has_no_form_there_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueRangeError, match="got orthogonal_matching_pursuit"):
        write_saelens(ours(OrthogonalMatchingPursuit(width=20, k=4)), tmp_path)
    with pytest.raises(ValueRangeError, match="tolerance of a matching pursuit must be 0 to have"):
        write_saelens(ours(replace(RECIPE, tolerance=0.1)), tmp_path)
    untied, biased, adding = ours(), ours(), ours()
    untied.W_enc.data.mul_(2)
    with pytest.raises(ValueRangeError, match="W_enc of a matching pursuit must be the transpose"):
        write_saelens(untied, tmp_path)
    biased.b_enc.data.fill_(0.1)
    with pytest.raises(ValueRangeError, match=r"must be zero to have a form.*; got 20 other"):
        write_saelens(biased, tmp_path)
    adding.apply_b_dec_to_input = False
    with pytest.raises(ValueRangeError, match="got one that is only added"):
        write_saelens(adding, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_iterations", 0, "max_iterations must be a whole number of at least 1, or null"),
        ("max_iterations", 2.5, "got 2.5"),
        ("residual_threshold", "much", "residual_threshold must be a finite number; got 'much'"),
    ],
)
def test_a_config_that_says_nonsense_is_refused(
    key: str, value: object, message: str, tmp_path: Path
):
    shutil.copytree(FIXTURES / "matching_pursuit", tmp_path / "it")
    config = json.loads((tmp_path / "it/cfg.json").read_text())
    (tmp_path / "it/cfg.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ValueRangeError, match=message):
        read_saelens(tmp_path / "it")


def test_a_decoder_that_is_missing_is_named(tmp_path: Path):
    shutil.copytree(FIXTURES / "matching_pursuit", tmp_path / "it")
    shutil.copy(FIXTURES / "standard/sae_weights.safetensors", tmp_path / "it")
    with pytest.raises(ValueRangeError, match="tensors must be W_dec, b_dec; got also W_enc"):
        read_saelens(tmp_path / "it")
    (tmp_path / "it/sae_weights.safetensors").unlink()
    with pytest.raises(CorruptFileError, match=r"must hold sae_weights\.safetensors"):
        read_saelens(tmp_path / "it")
