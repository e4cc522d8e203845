"""Gemma Scope's folders, written by hand from their layouts, against slow definitions."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modelassay.core.errors import CorruptFileError, NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.formats.gemma_scope import read_gemma_scope
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import (
    D,
    F,
    Trap,
    assert_encodes,
    assert_forward,
    draw_activations,
    random_weights,
    slow_decode,
    slow_encode,
)

RESIDUAL = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"


def write_first(folder, w):
    folder.mkdir(exist_ok=True, parents=True)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in w.items()})
    return folder


def write_second(folder, w, **config):
    folder.mkdir(exist_ok=True, parents=True)
    content = {
        "architecture": "jump_relu",
        "model_name": "gemma-3-1b-pt",
        "hf_hook_point_in": "model.layers.12.output",
        "affine_connection": False,
    }
    (folder / "config.json").write_text(json.dumps(content | config))
    save_file(
        {name.replace("W_", "w_"): tensor for name, tensor in w.items()},
        folder / "params.safetensors",
    )
    return folder


WRITE = {"first": write_first, "second": write_second}
FILE = {"first": "params.npz", "second": "params.safetensors"}


@pytest.mark.parametrize("release", WRITE)
def test_the_forward_pass_is_that_of_the_definition(release, tmp_path):
    w = random_weights()
    dictionary = read_gemma_scope(WRITE[release](tmp_path / RESIDUAL, w))
    x = draw_activations()
    values = slow_encode(w, x, w["threshold"], subtracts=False)
    assert_encodes(dictionary, values, x)
    assert_forward(dictionary, slow_decode(w, values), x)
    assert dictionary.reads == dictionary.writes == Site("resid_post", 12)
    assert dictionary.references == ("rajamanoharan2024jumprelu",)


@pytest.mark.parametrize(
    ("path", "site"),
    [
        (RESIDUAL, "resid_post.12"),
        ("gemma-scope-9b-it-mlp/layer_3/width_16k/average_l0_12", "mlp_out.3"),
        ("gemma-scope-2b-pt-res-canonical/layer_0/width_16k/canonical", "resid_post.0"),
        ("models--google--gemma-scope-2b-pt-res/snapshots/ab/layer_7/width_1m", "resid_post.7"),
        ("gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_12", "None"),
        ("downloads/layer_3", "None"),
    ],
)
def test_the_first_is_placed_by_its_path(path, site, tmp_path):
    dictionary = read_gemma_scope(write_first(tmp_path / path, random_weights()))
    assert str(dictionary.reads) == str(dictionary.writes) == site


def test_a_transcoder_of_the_second_reads_and_writes_where_its_config_says(tmp_path):
    write_second(
        tmp_path,
        random_weights(),
        hf_hook_point_in="model.layers.5.pre_feedforward_layernorm.output",
        hf_hook_point_out="model.layers.5.post_feedforward_layernorm.output",
    )
    dictionary = read_gemma_scope(tmp_path)
    assert (str(dictionary.reads), str(dictionary.writes)) == ("mlp_in.5", "mlp_out.5")
    assert not dictionary.apply_b_dec_to_input


HOOKS = {
    "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
    "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
}


def test_a_skip_transcoder_of_the_second_adds_its_linear_path(tmp_path):
    w = random_weights()
    skip = torch.randn(D, D, generator=generator(4))
    write_second(tmp_path, w | {"affine_skip_connection": skip}, affine_connection=True, **HOOKS)
    dictionary = read_gemma_scope(tmp_path)
    x = draw_activations()
    latents = slow_decode(w, slow_encode(w, x, w["threshold"], subtracts=False))
    assert_forward(dictionary, latents + x.double() @ skip.double(), x)
    assert (str(dictionary.reads), str(dictionary.writes)) == ("mlp_in.5", "mlp_out.5")


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    def refuse(self, folder, error, message):
        with pytest.raises(error, match=message):
            read_gemma_scope(folder)

    def test_a_folder_of_something_else(self, tmp_path):
        self.refuse(tmp_path, CorruptFileError, r"must hold params\.npz or params\.safetensors")

    @pytest.mark.parametrize("release", WRITE)
    @pytest.mark.parametrize("kept", [0, 100, -10])
    def test_a_truncated_file(self, release, kept, tmp_path):
        path = WRITE[release](tmp_path, random_weights()) / FILE[release]
        path.write_bytes(path.read_bytes()[:kept])
        self.refuse(tmp_path, CorruptFileError, rf"{FILE[release]}' must be a whole")

    def test_pickled_objects_in_the_archive_are_never_opened(self, tmp_path):
        objects = np.array([Trap(tmp_path / "trap")], dtype=object)
        np.savez(tmp_path / "params.npz", allow_pickle=True, W_enc=objects)
        self.refuse(tmp_path, CorruptFileError, r"params\.npz' must be a whole \.npz archive of")
        assert not (tmp_path / "trap").exists()

    def test_an_array_that_is_no_archive(self, tmp_path):
        with (tmp_path / "params.npz").open("wb") as file:
            np.save(file, np.zeros(3))
        self.refuse(tmp_path, CorruptFileError, r"must be a whole \.npz archive")

    @pytest.mark.parametrize("release", WRITE)
    @pytest.mark.parametrize("name", ["W_enc", "W_dec"])
    def test_a_transposed_matrix(self, release, name, tmp_path):
        w = random_weights()
        w[name] = w[name].t().contiguous()
        WRITE[release](tmp_path, w)
        self.refuse(tmp_path, ShapeError, rf"{FILE[release]}': (?i:{name}) must .* Transpose it")

    @pytest.mark.parametrize("release", WRITE)
    @pytest.mark.parametrize("name", ["threshold", "W_dec", "b_enc"])
    def test_a_missing_tensor(self, release, name, tmp_path):
        w = random_weights()
        del w[name]
        WRITE[release](tmp_path, w)
        self.refuse(tmp_path, CorruptFileError, rf"the tensor (?i:{name}) must be there")

    def test_weights_that_are_not_finite(self, tmp_path):
        w = random_weights()
        w["threshold"][4] = float("inf")
        self.refuse(write_first(tmp_path, w), NonFiniteError, "threshold must be finite; got 1")

    def test_what_a_transcoder_of_the_first_reads_must_be_said(self, tmp_path):
        folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3"
        self.refuse(write_first(folder, random_weights()), ValueRangeError, "Pass reads=")
        read = read_gemma_scope(folder, reads=Site("mlp_in", 3), writes=Site("mlp_out", 3))
        assert read.writes == Site("mlp_out", 3)

    def test_a_dictionary_of_embeddings(self, tmp_path):
        folder = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k"
        self.refuse(write_first(folder, random_weights()), ValueRangeError, "embeddings are scaled")

    def test_a_skip_connection_that_the_file_lacks(self, tmp_path):
        write_second(tmp_path, random_weights(), affine_connection=True, **HOOKS)
        self.refuse(tmp_path, CorruptFileError, "tensor affine_skip_connection must be there")

    def test_a_skip_connection_around_one_known_side(self, tmp_path):
        w = random_weights() | {"affine_skip_connection": torch.zeros(D, D)}
        write_second(tmp_path, w, affine_connection=True)
        self.refuse(
            tmp_path, ValueRangeError, r"must both be known, .* got resid_post\.12 and None"
        )

    def test_the_layers_of_many(self, tmp_path):
        (tmp_path / "params_layer_0.safetensors").write_bytes(b"")
        self.refuse(tmp_path, ValueRangeError, "Read the former with read_cross_layer")

    def test_a_skip_connection_in_the_weights_alone(self, tmp_path):
        w = random_weights() | {"affine_skip_connection": torch.zeros(D, D)}
        write_second(tmp_path, w)
        self.refuse(tmp_path, ValueRangeError, "got also affine_skip_connection")

    def test_a_cross_layer_transcoder(self, tmp_path):
        w = random_weights()
        write_second(tmp_path, w | {"W_dec": torch.zeros(F, 4, D)})
        self.refuse(tmp_path, ValueRangeError, r"w_dec must be a matrix: .* got \[24, 4, 6\]")

    def test_another_architecture(self, tmp_path):
        write_second(tmp_path, random_weights(), architecture="topk")
        self.refuse(tmp_path, ValueRangeError, "architecture must be jump_relu; got 'topk'")
