"""Llama Scope's folders, written by hand from their layout, against slow definitions."""

import json

import pytest
import torch
from safetensors.torch import save_file

from modelassay.core.errors import CorruptFileError, ShapeError, ValueRangeError
from modelassay.decompositions.formats.llama_scope import read_llama_scope
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import (
    D,
    F,
    assert_encodes,
    assert_forward,
    draw_activations,
    random_weights,
    slow_decode,
    slow_encode,
)

THRESHOLD = 0.4


def config_of(**changes):
    return {
        "d_model": D, "d_sae": F, "use_decoder_bias": True, "act_fn": "jumprelu",
        "apply_decoder_bias_to_pre_encoder": False, "norm_activation": "dataset-wise",
        "jump_relu_threshold": THRESHOLD, "top_k": 50,
        "dataset_average_activation_norm": {"in": 6.3125, "out": 6.3125},
        "hook_point_in": "blocks.8.hook_resid_post", "hook_point_out": "blocks.8.hook_resid_post",
    } | changes  # fmt: skip


def write_by_hand(folder, config, w):
    (folder / "checkpoints").mkdir(exist_ok=True, parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(config))
    tensors = {
        "encoder.weight": w["W_enc"].t().contiguous(),
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].t().contiguous(),
        "decoder.bias": w["b_dec"],
    }
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    return folder


@pytest.mark.parametrize("norm", [6.3125, 1.3, D**0.5])
@pytest.mark.parametrize("subtracts", [False, True])
def test_the_forward_pass_is_that_of_the_definition(norm, subtracts, tmp_path):
    w = random_weights()
    norms = {"in": norm, "out": norm}
    config = config_of(
        dataset_average_activation_norm=norms, apply_decoder_bias_to_pre_encoder=subtracts
    )
    dictionary = read_llama_scope(write_by_hand(tmp_path, config, w))
    scale = D**0.5 / norm
    x = draw_activations()
    # The weights see scaled activations; the threshold is in units of the unscaled ones.
    values = slow_encode(
        w, x.double() * scale, torch.tensor(THRESHOLD * scale), subtracts=subtracts
    )
    assert_encodes(dictionary, values / scale, x)
    assert_forward(dictionary, slow_decode(w, values) / scale, x)
    assert dictionary.reads == dictionary.writes == Site("resid_post", 8)
    torch.testing.assert_close(dictionary.activation.threshold, torch.full((F,), THRESHOLD))


def test_active_values_exceed_the_stored_threshold(tmp_path):
    dictionary = read_llama_scope(write_by_hand(tmp_path, config_of(), random_weights()))
    values = dictionary.encode(draw_activations()).dense()
    assert (values[values > 0] > THRESHOLD).all()
    assert (values > 0).any()


def test_rows_of_unit_length_need_no_choice_of_unit(tmp_path):
    w = random_weights()
    w["W_dec"] = w["W_dec"] / w["W_dec"].norm(dim=1, keepdim=True)
    config = config_of(sparsity_include_decoder_norm=True)
    assert read_llama_scope(write_by_hand(tmp_path, config, w)).width == F


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    def refuse(self, folder, error, message):
        with pytest.raises(error, match=message):
            read_llama_scope(folder)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"act_fn": "topk"}, ValueRangeError, "act_fn must be 'jumprelu'; got 'topk'"),
            ({"norm_activation": "token-wise"}, ValueRangeError, "must be 'dataset-wise'; got"),
            ({"hook_point_out": "blocks.8.hook_mlp_out"}, ValueRangeError, "hook_point_out must"),
            ({"sparsity_include_decoder_norm": True}, ValueRangeError, "got 24 that are not"),
            ({"jump_relu_threshold": None}, CorruptFileError, "jump_relu_threshold must be a num"),
            ({"dataset_average_activation_norm": {}}, CorruptFileError, "must hold the entry 'in'"),
            ({"d_sae": None}, CorruptFileError, r"hyperparams\.json': d_sae must be a whole num"),
        ],
    )
    def test_a_key_that_is_not_understood(self, changes, error, message, tmp_path):
        write_by_hand(tmp_path, config_of(**changes), random_weights())
        self.refuse(tmp_path, error, message)

    def test_a_missing_file(self, tmp_path):
        write_by_hand(tmp_path, config_of(), random_weights())
        (tmp_path / "checkpoints" / "final.safetensors").unlink()
        self.refuse(tmp_path, CorruptFileError, r"must hold final\.safetensors; got none")

    def test_a_transposed_decoder(self, tmp_path):
        w = random_weights()
        write_by_hand(tmp_path, config_of(), w | {"W_dec": w["W_dec"].t().contiguous()})
        self.refuse(tmp_path, ShapeError, r"decoder\.weight must have the shape .* Transpose it")
