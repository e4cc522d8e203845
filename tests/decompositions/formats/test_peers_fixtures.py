"""Folders that the peers' own libraries wrote, against what those libraries compute from them.

`benchmarks/peers/make_fixtures.py` makes the folders and says how.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.formats.dictionary_learning_writer import (
    write_dictionary_learning,
)
from modelassay.decompositions.formats.registry import READERS, write_dictionary
from modelassay.decompositions.formats.saelens import write_saelens
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

FIXTURES = Path(__file__).parent / "fixtures" / "peers"

# What has no form here, each with a part of the message that says why.
REFUSED = {
    "saelens/standard_layer_norm": "normalize_activations must be none or expected_average",
    "saelens/trained_whitened_checkpoint": "normalize_activations must be none or expected",
    "dictionary_learning/batchtopk_without_threshold": "threshold must be at least 0",
    "sparsify/skip": "skip_connection must be False where transcode is",
}
FOLDERS = sorted(str(path.parent.relative_to(FIXTURES)) for path in FIXTURES.glob("*/*/expected.*"))
READ = [name for name in FOLDERS if name not in REFUSED]


def read(name):
    return READERS[name.split("/")[0]](FIXTURES / name)


def assert_exact(dictionary, name):
    """Codes and reconstructions equal the library's, to rounding."""
    expected = load_file(FIXTURES / name / "expected.safetensors")
    x = expected["x"]
    with torch.no_grad():
        codes, reconstruction = dictionary.encode(x).dense(), dictionary(x)
    torch.testing.assert_close(codes, expected["features"], atol=4e-6, rtol=1e-6)
    torch.testing.assert_close(reconstruction, expected["reconstruction"], atol=4e-6, rtol=1e-6)
    # Near a tie or a threshold, equal to rounding could still mean another latent.
    assert ((codes != 0) == (expected["features"] != 0)).all()


def test_there_is_a_fixture_of_every_library_and_of_every_exception():
    assert {name.split("/")[0] for name in FOLDERS} == {
        "saelens",
        "dictionary_learning",
        "sparsify",
    }
    assert set(REFUSED) <= set(FOLDERS)


@pytest.mark.parametrize("name", READ)
def test_what_a_peer_wrote_computes_what_the_peer_computes(name):
    assert_exact(read(name), name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_here_is_refused_by_name(name):
    with pytest.raises(ValueRangeError, match=REFUSED[name]):
        read(name)


def test_sites_come_from_the_peers_own_names():
    assert read("saelens/trained_topk").reads == Site("resid_post", 3)
    assert read("dictionary_learning/topk").reads == Site("resid_post", 3)
    assert read("sparsify/layers.3").reads == Site("resid_post", 3)
    for name, writes in (
        ("saelens/transcoder", Site("mlp_out", 4)),
        ("sparsify/layers.3.mlp", Site("mlp_out", 3)),
    ):
        dictionary = read(name)
        assert dictionary.writes == writes != dictionary.reads


def test_a_transcoder_of_which_one_side_is_unknown_is_refused(tmp_path):
    source = FIXTURES / "saelens" / "transcoder"
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = (tmp_path / "cfg.json").read_text()
    (tmp_path / "cfg.json").write_text(config.replace("hook_name_out", "hook_name_2"))
    with pytest.raises(ValueRangeError, match="must both be known, or neither; got resid_post"):
        READERS["saelens"](tmp_path)


@pytest.mark.parametrize("name", ["saelens/trained_gated", "dictionary_learning/gated"])
@pytest.mark.parametrize("to", ["saelens", "dictionary_learning"])
def test_a_gated_dictionary_keeps_its_codes_in_both_formats(name, to, tmp_path):
    write_dictionary(read(name), tmp_path / "written", to=to)
    expected = load_file(FIXTURES / name / "expected.safetensors")
    again = READERS[to](tmp_path / "written")
    codes = again.encode(expected["x"]).dense()
    torch.testing.assert_close(codes, expected["features"], atol=4e-6, rtol=1e-6)


@pytest.mark.parametrize("write", [write_saelens, write_dictionary_learning])
def test_a_skip_connection_is_never_left_out_in_writing(write, tmp_path):
    plain = read("saelens/jumprelu_transcoder")
    plain.reads = plain.writes = None  # nothing but the connection tells it from an autoencoder
    transcoder = SkipTranscoder.around(plain, torch.eye(plain.d_in))
    with pytest.raises(ShapeError, match="Only dictionaries that reconstruct what they read"):
        write(transcoder, tmp_path / "written")
