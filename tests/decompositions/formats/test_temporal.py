"""Temporal dictionaries, against what SAELens computes from the same files."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from modelassay.core.errors import CorruptFileError, NonFiniteError, ShapeError, ValueRangeError
from modelassay.decompositions.formats.temporal import read_temporal
from modelassay.subjects.site import Site

FIXTURES = Path(__file__).parent / "fixtures" / "peers" / "temporal"
VARIANTS = sorted(path.name for path in (FIXTURES / "layer_3").iterdir())


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURES / "layer_3" / "untied", tmp_path / "untied"))


def change_config(folder, section, **values):
    path = folder / "conf.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    content[section] |= values
    path.write_text(yaml.safe_dump(content), "utf-8")


def change_weights(folder, **tensors):
    path = folder / "latest_ckpt.safetensors"
    found = load_file(path) | tensors
    save_file({k: v for k, v in found.items() if v is not None}, path)


def test_there_is_a_fixture_of_every_branch():
    assert VARIANTS == ["relu", "tied", "two_layers", "untied"]


@pytest.mark.parametrize("name", VARIANTS)
def test_codes_and_reconstruction_are_those_of_saelens(name):
    dictionary = read_temporal(FIXTURES / "layer_3" / name)
    expected = load_file(FIXTURES / "layer_3" / name / "outputs.safetensors")
    codes = dictionary.encode_contexts(expected["x"])
    novel = codes.novel.dense().view_as(expected["novel"])
    torch.testing.assert_close(novel, expected["novel"], atol=1e-6, rtol=2e-6)
    torch.testing.assert_close(codes.predicted, expected["predicted"], atol=4e-6, rtol=1e-5)
    torch.testing.assert_close(
        dictionary(expected["x"]), expected["reconstruction"], atol=4e-6, rtol=1e-5
    )
    assert ((novel != 0) == (expected["novel"] != 0)).all()
    # The comparison says nothing of a part that is zero.
    assert (expected["predicted"] != 0).any()
    assert (expected["novel"] != 0).any()


def test_the_site_comes_from_the_path():
    assert read_temporal(FIXTURES / "layer_3" / "tied").reads == Site("resid_post", 3)
    named = read_temporal(FIXTURES / "layer_3" / "tied", site=Site("mlp_out", 1))
    assert named.reads == Site("mlp_out", 1)


def test_a_repository_in_a_mirror_is_read_by_name(tmp_path):
    shutil.copytree(FIXTURES, tmp_path / "some" / "repo" / "model")
    name = "temporal:some/repo/model/layer_3/tied"
    dictionary = read_temporal(name, mirror=tmp_path)
    assert dictionary.width == 48
    assert dictionary.provenance is not None
    assert dictionary.provenance.facts["repository"] == "some/repo"
    with pytest.raises(CorruptFileError, match=r"conf\.yaml or .*latest_ckpt"):
        read_temporal("some/other/layer_3", mirror=tmp_path)


def test_a_bias_may_be_a_row(folder):
    before = read_temporal(folder)
    change_weights(folder, b=before.b_dec.detach()[None])
    assert torch.equal(read_temporal(folder).b_dec, before.b_dec)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sae_diff_type": "jumprelu"}, ValueRangeError, "sae_diff_type must be topk or relu"),
        ({"scaling_factor": None}, ValueRangeError, "scaling_factor must be a finite number"),
        ({"tied_weights": "no"}, ValueRangeError, "tied_weights must be true or false"),
        ({"tied_weights": True}, CorruptFileError, "an encoder E exactly if"),
        ({"n_heads": 0}, CorruptFileError, "n_heads must be a whole number"),
        ({"n_heads": 5}, ValueRangeError, "multiple of heads"),
        ({"n_attn_layers": 2}, CorruptFileError, r"attn_layers\.1\.k_ctx\.weight must be there"),
        ({"exp_factor": 2}, ShapeError, "must have the shape"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, error, message, folder):
    change_config(folder, "sae", **change)
    with pytest.raises(error, match=message):
        read_temporal(folder)


def test_damaged_files_are_refused(folder):
    change_weights(folder, unknown=torch.zeros(1))
    with pytest.raises(ValueRangeError, match="got also unknown"):
        read_temporal(folder)
    change_weights(folder, unknown=None, b=torch.full((12,), float("nan")))
    with pytest.raises(NonFiniteError, match="b must be finite"):
        read_temporal(folder)
    (folder / "conf.yaml").write_text("- a", "utf-8")
    with pytest.raises(CorruptFileError, match="sections llm and sae"):
        read_temporal(folder)
    (folder / "conf.yaml").write_text("[", "utf-8")
    with pytest.raises(CorruptFileError, match="must be YAML"):
        read_temporal(folder)
    (folder / "conf.yaml").unlink()
    with pytest.raises(CorruptFileError, match=r"must hold conf\.yaml"):
        read_temporal(folder)
