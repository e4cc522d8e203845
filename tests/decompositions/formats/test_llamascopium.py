"""Llamascopium's and Llama-Scope-R1's folders, by hand from their layouts."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelassay.core.errors import CorruptFileError, ShapeError, ValueRangeError
from modelassay.decompositions.formats.llama_scope import read_llama_scope
from modelassay.decompositions.formats.llamascopium import read_llamascopium
from modelassay.decompositions.formats.temporal import refuse_temporal
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import (
    D,
    F,
    K,
    assert_forward,
    draw_activations,
    random_weights,
    slow_decode,
)

HOOK, HOOK_OUT = "blocks.8.hook_resid_post", "blocks.9.hook_mlp_out"
NORM_IN, NORM_OUT = 6.3, 1.9
THRESHOLD = "activation_function.log_jumprelu_threshold"
FILE = "sae_weights.safetensors"


def write_by_hand(folder, w, *, old_names=False, **changes):
    folder.mkdir(exist_ok=True)
    config = {
        "sae_type": "sae", "d_model": D, "expansion_factor": F // D, "act_fn": "jumprelu",
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "top_k": K,
        "use_decoder_bias": True, "hook_point_in": HOOK, "hook_point_out": HOOK,
    } | changes  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"W_E": w["W_enc"], "b_E": w["b_enc"], "W_D": w["W_dec"]}
    if config["use_decoder_bias"]:
        tensors["b_D"] = w["b_dec"]
    if config["act_fn"] == "jumprelu":
        tensors[THRESHOLD] = w["threshold"].log()
    if old_names:
        tensors = {
            "encoder.weight": w["W_enc"].t().contiguous(),
            "encoder.bias": w["b_enc"],
            "decoder.weight": w["W_dec"].t().contiguous(),
            "decoder.bias": w["b_dec"],
            "log_jumprelu_threshold": w["threshold"].log(),
        }
    norms = {config["hook_point_in"]: NORM_IN}
    if config["hook_point_out"] != config["hook_point_in"]:
        norms[config["hook_point_out"]] = NORM_OUT
    for hook, norm in norms.items():
        tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(norm)
    save_file(tensors, folder / FILE)
    return folder


def slow(w, x, act_fn, *, s_in, s_out, by_norm):
    """Scale, encode, choose, decode, scale back, in float64."""
    w = {name: tensor.double() for name, tensor in w.items()}
    pre = (x.double() * s_in) @ w["W_enc"] + w["b_enc"]
    chosen_by = pre * (w["W_dec"].norm(dim=1) if by_norm else 1)
    if act_fn == "jumprelu":
        kept = chosen_by > w["threshold"]
    elif act_fn == "topk":
        kept = torch.zeros_like(pre).scatter_(1, chosen_by.topk(K).indices, 1).bool()
    else:
        kept = pre > 0
    return slow_decode(w, torch.where(kept & (pre > 0), pre, 0.0)) / s_out


@pytest.mark.parametrize("act_fn", ["jumprelu", "topk", "relu"])
@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
def test_the_forward_pass_is_that_of_the_definition(act_fn, by_norm, norm, tmp_path):
    w = random_weights()
    write_by_hand(
        tmp_path, w, act_fn=act_fn, norm_activation=norm, sparsity_include_decoder_norm=by_norm
    )
    dictionary = read_llamascopium(tmp_path)
    scale = math.sqrt(D) / NORM_IN if norm == "dataset-wise" else 1
    x = draw_activations()
    expected = slow(w, x, act_fn, s_in=scale, s_out=scale, by_norm=by_norm)
    assert_forward(dictionary, expected, x)
    assert dictionary.reads == dictionary.writes == Site("resid_post", 8)


def test_both_scales_of_a_transcoder_are_folded(tmp_path):
    w = random_weights()
    dictionary = read_llamascopium(write_by_hand(tmp_path, w, hook_point_out=HOOK_OUT))
    x = draw_activations()
    s_in, s_out = math.sqrt(D) / NORM_IN, math.sqrt(D) / NORM_OUT
    expected = slow(w, x, "jumprelu", s_in=s_in, s_out=s_out, by_norm=True)
    assert_forward(dictionary, expected, x)
    assert (dictionary.reads, dictionary.writes) == (Site("resid_post", 8), Site("mlp_out", 9))


def test_r1s_names_of_the_tensors_mean_the_same(tmp_path):
    w, x = random_weights(), draw_activations()
    today = read_llamascopium(write_by_hand(tmp_path / "a", w))
    older = read_llama_scope(write_by_hand(tmp_path / "b", w, old_names=True))
    assert torch.equal(older(x), today(x))


def test_without_a_bias_the_reconstruction_starts_from_zero(tmp_path):
    w = random_weights()
    dictionary = read_llamascopium(write_by_hand(tmp_path, w, use_decoder_bias=False))
    assert not dictionary.bias.any()


def test_lengths_without_meaning_are_not_looked_at_at_inference(tmp_path):
    w = random_weights()
    write_by_hand(tmp_path, w, norm_activation="inference")
    tensors = load_file(tmp_path / FILE)
    tensors[f"dataset_average_activation_norm.{HOOK}"] = torch.tensor(float("nan"))
    save_file(tensors, tmp_path / FILE)
    x = draw_activations()
    expected = slow(w, x, "jumprelu", s_in=1, s_out=1, by_norm=True)
    assert_forward(read_llamascopium(tmp_path), expected, x)


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"sae_type": "clt"}, ValueRangeError, r"config\.json': sae_type must be 'sae'; got"),
            ({"act_fn": "batchtopk"}, ValueRangeError, "have no threshold for inference; got 'bat"),
            ({"use_glu_encoder": True}, ValueRangeError, "use_glu_encoder must be false"),
            ({"norm_activation": "batch-wise"}, ValueRangeError, "must be dataset-wise or inf"),
            ({"hook_point_in": "a.b"}, ValueRangeError, "hook_point_in must be a hook of a site"),
            ({"hook_point_out": 3}, CorruptFileError, "must have the key 'hook_point_out'"),
            ({"d_model": None}, CorruptFileError, "d_model must be a whole number"),
            ({"act_fn": "topk", "top_k": 0}, CorruptFileError, "top_k must be a whole number"),
            ({"sparsity_include_decoder_norm": None}, CorruptFileError, "must be true or false"),
        ],
    )
    def test_a_config_that_is_not_understood(self, changes, error, message, tmp_path):
        write_by_hand(tmp_path, random_weights(), **changes)
        with pytest.raises(error, match=message):
            read_llamascopium(tmp_path)

    @pytest.mark.parametrize("old_names", [True, False])
    def test_a_transposed_decoder(self, old_names, tmp_path):
        w = random_weights()
        w["W_dec"] = w["W_dec"].t().contiguous()
        write_by_hand(tmp_path, w, old_names=old_names)
        with pytest.raises(ShapeError, match=r"(W_D|decoder\.weight) must .* Transpose it"):
            read_llamascopium(tmp_path)

    def test_a_missing_threshold_and_a_missing_scale(self, tmp_path):
        for key in (THRESHOLD, f"dataset_average_activation_norm.{HOOK}"):
            write_by_hand(tmp_path, random_weights())
            tensors = load_file(tmp_path / FILE)
            del tensors[key]
            save_file(tensors, tmp_path / FILE)
            with pytest.raises(CorruptFileError, match=f"the tensor {key} must be there"):
                read_llamascopium(tmp_path)

    def test_a_decoder_of_zeros_whose_length_divides(self, tmp_path):
        w = random_weights()
        w["W_dec"][4] = 0
        write_by_hand(tmp_path, w)
        with pytest.raises(ValueRangeError, match=r"no latent's decoder may be zero .* got 1"):
            read_llamascopium(tmp_path)
        write_by_hand(tmp_path, w, sparsity_include_decoder_norm=False)
        assert read_llamascopium(tmp_path).width == F

    def test_only_one_end_of_a_transcoder(self, tmp_path):
        write_by_hand(tmp_path, random_weights(), hook_point_out=HOOK_OUT)
        with pytest.raises(ValueRangeError, match="must both be known"):
            read_llamascopium(tmp_path, reads=Site("mlp_in", 9))

    def test_a_temporal_sae(self, tmp_path):
        with pytest.raises(ValueRangeError, match="got a temporal SAE"):
            refuse_temporal(str(tmp_path))
