"""sparsify's hookpoint folders, written by hand from its layout, against slow definitions."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.decompositions.formats.sparsify import read_sparsify, write_sparsify
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import (
    SITE,
    D,
    F,
    K,
    assert_encodes,
    assert_forward,
    dictionary_of,
    draw_activations,
    random_weights,
    slow_decode,
    slow_encode,
)


def config_of(**changes):
    return {
        "activation": "topk", "expansion_factor": F // D, "normalize_decoder": True,
        "num_latents": 0, "k": K, "multi_topk": False, "skip_connection": False,
        "transcode": False, "d_in": D,
    } | changes  # fmt: skip


def tensors_of(w):
    return {
        "encoder.weight": w["W_enc"].t().contiguous(),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }


def write_by_hand(folder, config, tensors):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae.safetensors")
    return folder


@pytest.mark.parametrize("transcodes", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"num_latents": F, "expansion_factor": 32}])
def test_the_forward_pass_is_that_of_the_definition(transcodes, sizes, tmp_path):
    w = random_weights()
    config = config_of(transcode=transcodes, **sizes)
    dictionary = read_sparsify(write_by_hand(tmp_path / "layers.3.mlp", config, tensors_of(w)))
    x = draw_activations()
    values = slow_encode(w, x, "topk", subtracts=not transcodes)
    assert_encodes(dictionary, values, x)
    assert_forward(dictionary, slow_decode(w, values), x)
    assert dictionary.writes == Site("mlp_out", 3)
    assert dictionary.reads == Site("mlp_in" if transcodes else "mlp_out", 3)


def test_a_skip_transcoder_adds_its_linear_path(tmp_path):
    w = random_weights()
    skip = torch.randn(D, D, generator=generator(4))  # [d_out, d_in] in the file
    config = config_of(transcode=True, skip_connection=True)
    folder = write_by_hand(tmp_path / "layers.3.mlp", config, tensors_of(w) | {"W_skip": skip})
    dictionary = read_sparsify(folder)
    x = draw_activations()
    latents = slow_decode(w, slow_encode(w, x, "topk", subtracts=False))
    assert_forward(dictionary, latents + x.double() @ skip.double().t(), x)
    write_sparsify(dictionary, tmp_path / "again" / "layers.3.mlp")
    stored = load_file(tmp_path / "again" / "layers.3.mlp" / "sae.safetensors")
    assert torch.equal(stored["W_skip"], skip)
    assert torch.equal(read_sparsify(tmp_path / "again" / "layers.3.mlp")(x), dictionary(x))


def test_groupmax_keeps_the_largest_of_each_group(tmp_path):
    w = random_weights()
    config = config_of(activation="groupmax")
    dictionary = read_sparsify(write_by_hand(tmp_path / "layers.3", config, tensors_of(w)))
    x = draw_activations()
    pre = ((x - w["b_dec"]).double() @ w["W_enc"].double() + w["b_enc"].double()).relu()
    values = torch.zeros_like(pre)
    for token, row in enumerate(pre):
        for group in range(K):
            inside = range(group * F // K, (group + 1) * F // K)
            best = max(inside, key=lambda i: float(row[i]))
            values[token, best] = row[best]
    assert_encodes(dictionary, values, x)
    write_sparsify(dictionary, tmp_path / "again" / "layers.3")
    assert torch.equal(read_sparsify(tmp_path / "again" / "layers.3")(x), dictionary(x))


@pytest.mark.parametrize(
    ("hookpoint", "transcodes", "reads", "writes"),
    [
        ("layers.3", False, "resid_post.3", "resid_post.3"),
        ("layers.3", True, "resid_pre.3", "resid_post.3"),
        ("gpt_neox.layers.11", False, "resid_post.11", "resid_post.11"),
        ("h.0", False, "resid_post.0", "resid_post.0"),
        ("transformer.h.0.attn", False, "attn_out.0", "attn_out.0"),
        ("layers.2.self_attn", True, "attn_in.2", "attn_out.2"),
        ("layers.2.attention", False, "attn_out.2", "attn_out.2"),
        ("layers.2.mlp.act", False, "None", "None"),
        ("embed_tokens", False, "None", "None"),
    ],
)
def test_the_folders_name_says_where_it_belongs(hookpoint, transcodes, reads, writes, tmp_path):
    config = config_of(transcode=transcodes)
    folder = write_by_hand(tmp_path / hookpoint, config, tensors_of(random_weights()))
    dictionary = read_sparsify(folder)
    assert (str(dictionary.reads), str(dictionary.writes)) == (reads, writes)


def test_the_caller_can_say_where_it_belongs(tmp_path):
    write_by_hand(tmp_path / "layers.3", config_of(), tensors_of(random_weights()))
    dictionary = read_sparsify(tmp_path / "layers.3", reads=Site("mlp_hidden", 1))
    assert dictionary.reads == dictionary.writes == Site("mlp_hidden", 1)


def test_a_transcoder_must_have_both_ends_known(tmp_path):
    write_by_hand(tmp_path, config_of(transcode=True), tensors_of(random_weights()))
    with pytest.raises(ValueRangeError, match=r"got mlp_in\.1 and None\. Pass reads= and writes="):
        read_sparsify(tmp_path, reads=Site("mlp_in", 1))
    dictionary = read_sparsify(tmp_path, reads=Site("mlp_in", 1), writes=Site("mlp_out", 1))
    assert dictionary.writes == Site("mlp_out", 1)


def test_half_precision_is_read_as_single(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in tensors_of(random_weights()).items()}
    dictionary = read_sparsify(write_by_hand(tmp_path, config_of(), tensors))
    assert dictionary.W_enc.dtype == torch.float32


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("reads", [SITE, Site("mlp_in", 3)])
def test_what_is_written_has_the_layout_and_the_same_forward(reads, subtracts, tmp_path):
    before = dictionary_of("topk", subtracts=subtracts, reads=reads)
    folder = tmp_path / "layers.3"
    write_sparsify(before, folder)
    config = json.loads((folder / "cfg.json").read_text())
    stored = load_file(folder / "sae.safetensors")
    documented = tensors_of(random_weights())
    assert {k: v.shape for k, v in stored.items()} == {k: v.shape for k, v in documented.items()}
    assert config["transcode"] == (reads != SITE)
    assert config["num_latents"] == F
    # The slow definition, reading only the files, agrees with the dictionary.
    w = stored | {"W_enc": stored["encoder.weight"].t(), "b_enc": stored["encoder.bias"]}
    x = draw_activations()
    values = slow_encode(w, x, "topk", subtracts=not config["transcode"])
    assert_forward(before, slow_decode(w, values), x)
    after = read_sparsify(folder)
    torch.testing.assert_close(after(x), before(x), atol=1e-4, rtol=1e-4)


def test_normalised_rows_are_told_from_others(tmp_path):
    dictionary = dictionary_of("topk")
    write_sparsify(dictionary, tmp_path / "a")
    assert not json.loads((tmp_path / "a" / "cfg.json").read_text())["normalize_decoder"]
    with torch.no_grad():
        dictionary.W_dec.div_(dictionary.W_dec.norm(dim=1, keepdim=True))
    write_sparsify(dictionary, tmp_path / "b")
    assert json.loads((tmp_path / "b" / "cfg.json").read_text())["normalize_decoder"]


@pytest.mark.parametrize("kind", ["relu", "batchtopk", "jumprelu"])
def test_other_sparsifiers_are_not_written(kind, tmp_path):
    with pytest.raises(ValueRangeError, match=f"must be topk or groupmax .* got {kind}"):
        write_sparsify(dictionary_of(kind), tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_nothing_is_overwritten_unless_forced(tmp_path):
    write_sparsify(dictionary_of("topk"), tmp_path)
    with pytest.raises(OutputExistsError, match=r"with a cfg\.json in it"):
        write_sparsify(dictionary_of("topk"), tmp_path)
    write_sparsify(dictionary_of("topk", seed=4), tmp_path, force=True)
    assert torch.equal(read_sparsify(tmp_path).W_dec, dictionary_of("topk", seed=4).W_dec)


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    def refuse(self, folder, error, message):
        with pytest.raises(error, match=message):
            read_sparsify(folder)

    @pytest.mark.parametrize("name", ["cfg.json", "sae.safetensors"])
    def test_a_missing_file(self, name, tmp_path):
        (write_by_hand(tmp_path, config_of(), tensors_of(random_weights())) / name).unlink()
        self.refuse(tmp_path, CorruptFileError, f"must hold {name}; got none")

    def test_a_truncated_file(self, tmp_path):
        write_by_hand(tmp_path, config_of(), tensors_of(random_weights()))
        path = tmp_path / "sae.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        self.refuse(tmp_path, CorruptFileError, r"sae\.safetensors' must be a whole")

    @pytest.mark.parametrize("name", ["encoder.weight", "W_dec"])
    def test_a_transposed_matrix(self, name, tmp_path):
        tensors = tensors_of(random_weights())
        tensors[name] = tensors[name].t().contiguous()
        write_by_hand(tmp_path, config_of(), tensors)
        self.refuse(tmp_path, ShapeError, rf"{name} must have the shape \[24, 6\]; .* Transpose it")

    def test_a_missing_tensor(self, tmp_path):
        tensors = tensors_of(random_weights())
        del tensors["W_dec"]  # as in folders of encoders alone
        write_by_hand(tmp_path, config_of(), tensors)
        self.refuse(tmp_path, CorruptFileError, r"sae\.safetensors': the tensor W_dec must be")

    def test_weights_that_are_not_finite(self, tmp_path):
        tensors = tensors_of(random_weights())
        tensors["b_dec"][2] = float("nan")
        write_by_hand(tmp_path, config_of(), tensors)
        self.refuse(tmp_path, NonFiniteError, "b_dec must be finite; got 1 entries")

    def test_a_skip_connection_in_the_weights_alone(self, tmp_path):
        tensors = tensors_of(random_weights()) | {"W_skip": torch.zeros(D, D)}
        write_by_hand(tmp_path, config_of(transcode=True), tensors)
        self.refuse(tmp_path, ValueRangeError, "got also W_skip")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"skip_connection": True}, "skip_connection must be False where transcode is: an"),
            ({"activation": "relu"}, "activation must be topk or groupmax; got 'relu'"),
            ({"signed": True}, "signed must be False"),
            ({"gram_lookup": True}, "gram_lookup must be False: its table is not"),
            ({"noise": 3}, r"cfg\.json': noise must be a key that this reader knows; got 3"),
        ],
    )
    def test_a_key_that_is_not_understood(self, changes, message, tmp_path):
        write_by_hand(tmp_path, config_of(**changes), tensors_of(random_weights()))
        self.refuse(tmp_path, ValueRangeError, message)

    @pytest.mark.parametrize("key", ["d_in", "k"])
    def test_a_config_without_a_number(self, key, tmp_path):
        write_by_hand(tmp_path, config_of(**{key: None}), tensors_of(random_weights()))
        self.refuse(tmp_path, CorruptFileError, f"{key} must be a whole number of at least 1")
