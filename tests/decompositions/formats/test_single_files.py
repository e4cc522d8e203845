"""Formats of one file: OpenAI, Qwen Scope, Goodfire, circuit-tracer; against slow definitions."""

import pytest
import torch
from safetensors.torch import save_file

from modelassay.core.errors import CorruptFileError, ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.formats.circuit_tracer import read_circuit_tracer
from modelassay.decompositions.formats.goodfire import read_goodfire
from modelassay.decompositions.formats.openai import read_openai
from modelassay.decompositions.formats.qwen_scope import read_qwen_scope
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import (
    D,
    F,
    K,
    Trap,
    assert_encodes,
    assert_forward,
    draw_activations,
    random_weights,
    slow_decode,
    slow_encode,
)

QWEN = f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}/layer3.sae.pt"
GOODFIRE = "Llama-3.1-8B-Instruct-SAE-l19.pth"
CONFIG = "model_name: 'm'\nfeature_input_hook: \"mlp.hook_in\"\nfeature_output_hook: hook_mlp_out\n"


def openai_state(w, activation="ReLU"):
    state = {
        "pre_bias": w["b_dec"],
        "encoder.weight": w["W_enc"].t().contiguous(),
        "latent_bias": w["b_enc"],
        "decoder.weight": w["W_dec"].t().contiguous(),
        "stats_last_nonzero": torch.zeros(F, dtype=torch.long),
        "latents_activation_frequency": torch.ones(F),
        "latents_mean_square": torch.zeros(F),
        "activation": activation,
        "activation_state_dict": {},
    }
    if activation == "TopK":
        state["activation_state_dict"] = {"k": K, "postact_fn": "ReLU"}
    return state


def qwen_state(w):
    names = ("b_enc", "b_dec")
    matrices = {name: w[name].t().contiguous() for name in ("W_enc", "W_dec")}
    return matrices | {name: w[name] for name in names}


def goodfire_state(w):
    return {
        "encoder_linear.weight": w["W_enc"].t().contiguous(),
        "encoder_linear.bias": w["b_enc"],
        "decoder_linear.weight": w["W_dec"].t().contiguous(),
        "decoder_linear.bias": w["b_dec"],
    }


def tracer_tensors(w, *, jumps):
    tensors = {name: w[name] for name in ("b_enc", "W_dec", "b_dec")}
    tensors["W_enc"] = w["W_enc"].t().contiguous()
    return tensors | ({"activation_function.threshold": w["threshold"]} if jumps else {})


STATES = {
    "openai": (read_openai, "3.pt", openai_state),
    "qwen_scope": (read_qwen_scope, QWEN, qwen_state),
    "goodfire": (read_goodfire, GOODFIRE, goodfire_state),
}
RULES = {"openai": ("relu", True), "qwen_scope": ("topk", False), "goodfire": ("relu", False)}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("peer", "site"),
    [("openai", None), ("qwen_scope", Site("resid_post", 3)), ("goodfire", Site("resid_post", 19))],
)
def test_the_forward_pass_is_that_of_the_definition(peer, site, tmp_path):
    read, name, state_of = STATES[peer]
    rule, subtracts = RULES[peer]
    w = random_weights()
    dictionary = read(save(tmp_path / name, state_of(w)))
    x = draw_activations()
    values = slow_encode(w, x, rule, subtracts=subtracts)
    assert_encodes(dictionary, values, x)
    assert_forward(dictionary, slow_decode(w, values), x)
    assert dictionary.reads == dictionary.writes == site


@pytest.mark.parametrize("jumps", [True, False])
def test_the_forward_pass_of_a_transcoder_is_that_of_the_definition(jumps, tmp_path):
    w = random_weights()
    path = tmp_path / "layer_7.safetensors"
    save_file(tracer_tensors(w, jumps=jumps), path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    dictionary = read_circuit_tracer(path)
    x = draw_activations()
    values = slow_encode(w, x, w["threshold"] if jumps else "relu", subtracts=False)
    assert_encodes(dictionary, values, x)
    assert_forward(dictionary, slow_decode(w, values), x)
    assert (str(dictionary.reads), str(dictionary.writes)) == ("mlp_in.7", "mlp_out.7")


def test_a_skip_transcoder_adds_its_linear_path(tmp_path):
    w = random_weights()
    skip = torch.randn(D, D, generator=generator(4))  # [d_out, d_in] in the file
    save_file(tracer_tensors(w, jumps=True) | {"W_skip": skip}, tmp_path / "layer_7.safetensors")
    dictionary = read_circuit_tracer(tmp_path / "layer_7.safetensors")
    x = draw_activations()
    latents = slow_decode(w, slow_encode(w, x, w["threshold"], subtracts=False))
    assert_forward(dictionary, latents + x.double() @ skip.double().t(), x)


def test_what_else_a_training_left_beside_them_does_not_matter(tmp_path):
    # As in mwhanna's folders, where the config may be missing.
    (tmp_path / "wandb-config.yaml").write_text("d_model: {value: 6}\n")
    save_file(tracer_tensors(random_weights(), jumps=False), tmp_path / "layer_7.safetensors")
    assert read_circuit_tracer(tmp_path / "layer_7.safetensors").reads is None


def test_qwens_k_is_read_from_the_hubs_cache(tmp_path):
    repository = tmp_path / "models--Qwen--SAE-Res-Qwen3-1.7B-Base-W32K-L0_5" / "snapshots" / "ab"
    path = save(repository / "layer3.sae.pt", qwen_state(random_weights()))
    assert read_qwen_scope(path).activation.k == 5


def test_openais_topk_is_one_of_normalised_tokens(tmp_path):
    w = random_weights()
    path = save(tmp_path / "8.pt", openai_state(w, "TopK"))
    with pytest.raises(ValueRangeError, match=r"every token is normalised on its own"):
        read_openai(path)
    dictionary = read_openai(path, normalised=True)
    x = draw_activations().double()
    mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    normal = (x - mean) / (deviation + 1e-5)
    values = slow_encode(w, normal, "topk", subtracts=True)
    expected = slow_decode(w, values) * deviation + mean
    found = dictionary(normal.float()).double() * deviation + mean
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_qwens_k_can_be_said(tmp_path):
    w = random_weights()
    path = save(tmp_path / "layer3.sae.pt", qwen_state(w))
    with pytest.raises(ValueRangeError, match="must bear the repository's name"):
        read_qwen_scope(path)
    x = draw_activations()
    values = slow_encode(w, x, "topk", subtracts=False, k=5)
    assert_encodes(read_qwen_scope(path, k=5), values, x)


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    @pytest.mark.parametrize("peer", STATES)
    def test_a_missing_truncated_or_foreign_file(self, peer, tmp_path):
        read, name, state_of = STATES[peer]
        path = tmp_path / name
        with pytest.raises(CorruptFileError, match="got none in"):
            read(path)
        save(path, state_of(random_weights()))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CorruptFileError, match="must be a whole state dict"):
            read(path)
        save(path, Trap(tmp_path / "trap"))
        with pytest.raises(CorruptFileError, match="Other pickles may run any code"):
            read(path)
        assert not (tmp_path / "trap").exists()

    @pytest.mark.parametrize("peer", STATES)
    def test_a_transposed_or_missing_matrix(self, peer, tmp_path):
        read, name, state_of = STATES[peer]
        state = state_of(random_weights())
        matrices = [key for key, value in state.items() if getattr(value, "ndim", 0) == 2]
        for key in matrices:
            changed = state | {key: state[key].t().contiguous()}
            with pytest.raises(ShapeError, match=rf"{key} must have the shape .* Transpose it"):
                read(save(tmp_path / name, changed))
            del changed[key]
            with pytest.raises(CorruptFileError, match=f"the tensor {key} must be there"):
                read(save(tmp_path / name, changed))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"activation": "Identity"}, "activation must be ReLU or TopK; got 'Identity'"),
            ({"activation": "TopK"}, "postact_fn must be ReLU; got None"),
            ({"noise": torch.zeros(3)}, "got also noise"),
        ],
    )
    def test_what_openais_file_says_that_is_not_understood(self, changes, message, tmp_path):
        path = save(tmp_path / "3.pt", openai_state(random_weights()) | changes)
        with pytest.raises(ValueRangeError, match=message):
            read_openai(path)

    @pytest.mark.parametrize("said", ["file", "config"])
    def test_a_choice_that_may_be_negative(self, said, tmp_path):
        tensors = tracer_tensors(random_weights(), jumps=False)
        if said == "file":
            tensors["k"] = torch.tensor(3)
        else:
            (tmp_path / "config.yaml").write_text(f"{CONFIG}activation: topk\nk: 3\n")
        save_file(tensors, tmp_path / "layer_0.safetensors")
        with pytest.raises(
            ValueRangeError, match=r"activation must be relu or jump_relu: .*'topk'"
        ):
            read_circuit_tracer(tmp_path / "layer_0.safetensors")

    def test_a_threshold_that_the_config_promises(self, tmp_path):
        (tmp_path / "config.yaml").write_text(f"{CONFIG}activation: jump_relu\n")
        save_file(tracer_tensors(random_weights(), jumps=False), tmp_path / "layer_0.safetensors")
        with pytest.raises(CorruptFileError, match=r"activation_function\.threshold must be there"):
            read_circuit_tracer(tmp_path / "layer_0.safetensors")

    def test_a_skip_connection_of_another_shape(self, tmp_path):
        tensors = tracer_tensors(random_weights(), jumps=True) | {"W_skip": torch.zeros(D, D + 1)}
        save_file(tensors, tmp_path / "layer_0.safetensors")
        with pytest.raises(ShapeError, match=r"W_skip must have the shape \[6, 6\]; got \[6, 7\]"):
            read_circuit_tracer(tmp_path / "layer_0.safetensors")

    def test_a_part_of_a_cross_layer_transcoder(self, tmp_path):
        with pytest.raises(ValueRangeError, match="which writes to many layers"):
            read_circuit_tracer(tmp_path / "W_enc_0.safetensors")

    def test_hooks_that_are_not_known(self, tmp_path):
        save_file(tracer_tensors(random_weights(), jumps=True), tmp_path / "layer_0.safetensors")
        config = CONFIG.replace("mlp.hook_in", "ln2.hook_normalized")
        (tmp_path / "config.yaml").write_text(config)
        with pytest.raises(ValueRangeError, match=r"feature_input_hook must be one of .* 'ln2"):
            read_circuit_tracer(tmp_path / "layer_0.safetensors")

    def test_only_one_end_of_a_transcoder(self, tmp_path):
        save_file(tracer_tensors(random_weights(), jumps=True), tmp_path / "layer_0.safetensors")
        with pytest.raises(ValueRangeError, match="must both be known, or neither"):
            read_circuit_tracer(tmp_path / "layer_0.safetensors", reads=Site("mlp_in", 0))
        assert read_circuit_tracer(tmp_path / "layer_0.safetensors").reads is None
