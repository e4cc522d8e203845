"""SAELens folders, written here by hand from the documented layout, against slow definitions."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.saelens import read_saelens, write_saelens
from modelassay.decompositions.recipes import BatchTopK, ReLUL1, TopK
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.subjects.site import Site

D, F, K = 6, 24, 3
SITE = Site(role="resid_post", layer=3)
HOOK = "blocks.3.hook_resid_post"


def weights_of(architecture, seed=0):
    """Random weights in the layout of the format."""
    source = generator(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=source)

    weights = {"W_enc": draw(D, F), "b_enc": draw(F), "W_dec": draw(F, D), "b_dec": draw(D)}
    if architecture == "jumprelu":
        weights["threshold"] = draw(F).abs()
    if architecture == "batchtopk":
        weights["topk_threshold"] = torch.tensor(0.7, dtype=torch.float64)
    return weights


def config_of(architecture, **changes):
    """A config of version 6."""
    config = {
        "d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none",
        "architecture": architecture,
        "metadata": {
            "sae_lens_version": "6.54.12", "hook_name": HOOK, "hook_head_index": None,
            "model_name": "gpt2", "prepend_bos": True,
        },
    }  # fmt: skip
    if architecture in ("topk", "batchtopk"):
        config |= {"k": K, "rescale_acts_by_decoder_norm": False}
    return config | changes


def write_by_hand(folder, config, weights):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


def forward_by_hand(config, weights, x):
    """What SAELens computes, in float64 and token by token."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    scale = config.get("input_scale", 1.0)
    rescale = config.get("rescale_acts_by_decoder_norm", False)
    norms = w["W_dec"].norm(dim=1) if rescale else torch.ones(F, dtype=torch.float64)
    rows = []
    for row in x.double() * scale:
        centred = row - w["b_dec"] if config.get("apply_b_dec_to_input", True) else row
        pre = (centred @ w["W_enc"] + w["b_enc"]) * norms
        match config["architecture"]:
            case "standard":
                active = pre > 0
            case "topk":
                active = pre >= sorted(pre.tolist())[-K]
            case "batchtopk":
                active = pre > w["topk_threshold"]
            case "jumprelu":
                active = pre > w["threshold"]
        values = pre.relu() * active
        values = values * w.get("scaling_factor", torch.ones(()))
        rows.append(((values / norms) @ w["W_dec"] + w["b_dec"]) / scale)
    return torch.stack(rows)


def draw_activations(seed=9, n_tokens=20):
    return torch.randn(n_tokens, D, generator=generator(seed)) * 2 + 1


def assert_same_forward(dictionary, config, weights):
    x = draw_activations()
    expected = forward_by_hand(config, weights, x).float()
    torch.testing.assert_close(dictionary(x), expected, atol=1e-4, rtol=1e-4)


ARCHITECTURES = ["standard", "topk", "batchtopk", "jumprelu"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("centred", [True, False])
def test_the_forward_pass_is_that_of_the_definition(architecture, centred, tmp_path):
    config = config_of(architecture, apply_b_dec_to_input=centred)
    weights = weights_of(architecture)
    dictionary = read_saelens(write_by_hand(tmp_path, config, weights))
    assert_same_forward(dictionary, config, weights)
    assert dictionary.reads == dictionary.writes == SITE
    assert dictionary.references


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
@pytest.mark.parametrize("input_scale", [None, 0.2])
def test_choice_by_decoder_norm_is_folded(architecture, input_scale, tmp_path):
    config = config_of(architecture, rescale_acts_by_decoder_norm=True)
    weights = weights_of(architecture)
    if input_scale is not None:
        config["normalize_activations"] = "expected_average_only_in"
        scaler = {"scaling_factor": input_scale, "has_whitening": False}
        (tmp_path / "activation_scaler.json").write_text(json.dumps(scaler))
    dictionary = read_saelens(write_by_hand(tmp_path, config, weights))
    assert_same_forward(dictionary, config | {"input_scale": input_scale or 1.0}, weights)
    torch.testing.assert_close(dictionary.directions.norm(dim=1), torch.ones(F))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("said", ["expected_average_only_in", True])
def test_the_scale_of_a_checkpoint_is_folded(architecture, said, tmp_path):
    config = config_of(architecture, normalize_activations=said)
    weights = weights_of(architecture)
    write_by_hand(tmp_path, config, weights)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 3.5}')
    assert_same_forward(read_saelens(tmp_path), config | {"input_scale": 3.5}, weights)


def test_a_scale_that_is_not_there_is_asked_for(tmp_path):
    config = config_of("standard", normalize_activations="expected_average_only_in")
    write_by_hand(tmp_path, config, weights_of("standard"))
    with pytest.raises(ValueRangeError, match=r"activation_scaler\.json must hold .* got None"):
        read_saelens(tmp_path)


@given(st.integers(0, 2**32), st.booleans())
def test_a_centred_residual_stream_is_centred_by_the_encoder(tmp_path_factory, seed, subtracts):
    config = config_of("standard", apply_b_dec_to_input=subtracts)
    config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    weights = weights_of("standard", seed)
    dictionary = read_saelens(write_by_hand(tmp_path_factory.mktemp("sae"), config, weights))
    x = draw_activations(seed)
    centred = x - x.mean(1, keepdim=True)
    expected = forward_by_hand(config, weights, centred).float()
    torch.testing.assert_close(dictionary(x), expected, atol=1e-4, rtol=1e-4)


def test_the_caller_can_say_that_the_stream_was_centred_or_not(tmp_path):
    config, weights = config_of("standard"), weights_of("standard")
    write_by_hand(tmp_path, config, weights)
    x = draw_activations()
    shifted = x + torch.arange(20.0).unsqueeze(1)
    centring = read_saelens(tmp_path, centred=True)
    torch.testing.assert_close(centring(shifted), centring(x), atol=1e-3, rtol=1e-4)
    plain = read_saelens(tmp_path, centred=False)
    assert (plain(shifted) - plain(x)).abs().max() > 1


class TestFoldersOfBeforeVersion6:
    """One flat config with all training settings and other names."""

    def config(self, **changes):
        return {
            "model_name": "gpt2-small", "hook_point": HOOK, "hook_point_layer": 3,
            "hook_point_head_index": None, "dataset_path": "Skylion007/openwebtext",
            "context_size": 128, "d_in": D, "d_sae": F, "dtype": "torch.float32", "lr": 4e-4,
            "l1_coefficient": 8e-5, "use_ghost_grads": False, "expansion_factor": 4,
        } | changes  # fmt: skip

    def test_standard(self, tmp_path):
        weights = weights_of("standard")
        folder = write_by_hand(tmp_path, self.config(), weights)
        assert_same_forward(read_saelens(folder), config_of("standard"), weights)
        assert read_saelens(folder).reads == SITE

    def test_topk_was_an_activation_function(self, tmp_path):
        weights = weights_of("topk")
        config = self.config(activation_fn_str="topk", activation_fn_kwargs={"k": K})
        folder = write_by_hand(tmp_path, config, weights)
        assert_same_forward(read_saelens(folder), config_of("topk"), weights)

    def test_jumprelu_with_the_logarithm_of_its_threshold(self, tmp_path):
        weights = weights_of("jumprelu")
        stored = {k: v for k, v in weights.items() if k != "threshold"}
        stored["log_threshold"] = weights["threshold"].log()
        folder = write_by_hand(tmp_path, self.config(architecture="jumprelu"), stored)
        assert_same_forward(read_saelens(folder), config_of("jumprelu"), weights)

    def test_a_factor_per_latent_is_folded(self, tmp_path):
        weights = weights_of("standard")
        weights["scaling_factor"] = torch.rand(F, generator=generator(3)) + 0.5
        config = self.config(finetuning_scaling_factor=True)
        folder = write_by_hand(tmp_path, config, weights)
        assert_same_forward(read_saelens(folder), config_of("standard"), weights)

    def test_an_unused_factor_of_ones_is_ignored(self, tmp_path):
        weights = weights_of("standard") | {"scaling_factor": torch.ones(F)}
        folder = write_by_hand(tmp_path, self.config(), weights)
        assert_same_forward(read_saelens(folder), config_of("standard"), weights)

    def test_a_factor_that_the_config_denies_is_refused(self, tmp_path):
        weights = weights_of("standard") | {"scaling_factor": torch.full((F,), 2.0)}
        folder = write_by_hand(tmp_path, self.config(), weights)
        with pytest.raises(ValueRangeError, match="got also scaling_factor"):
            read_saelens(folder)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("architecture", "temporal"), ("activation_fn_str", "tanh-relu"),
         ("hook_point", "blocks.3.attn.hook_z"), ("hook_point_head_index", 2),
         ("normalize_activations", "layer_norm")],
    )  # fmt: skip
    def test_what_is_not_understood_is_refused(self, key, value, tmp_path):
        config = self.config(**{key: value})
        folder = write_by_hand(tmp_path, config, weights_of("standard"))
        with pytest.raises(ValueRangeError, match="guessing it would give wrong numbers"):
            read_saelens(folder)


def dictionary_of(kind):
    """A dictionary of ours with every weight random."""
    if kind == "jumprelu":
        weights = weights_of("jumprelu")
        activation = JumpReLUActivation(weights.pop("threshold"))
        return Dictionary(**weights, activation=activation, apply_b_dec_to_input=False)
    recipes = {
        "topk": TopK(width=F, k=K),
        "batchtopk": BatchTopK(width=F, k=K),
        "relu": ReLUL1(width=F),
    }
    dictionary = recipes[kind].build(D, D, torch.ones(D), generator(0), SITE)
    with torch.no_grad():
        dictionary.b_enc.normal_(generator=generator(1))
    if kind == "batchtopk":
        dictionary.activation.calibrate(0.1)
    return dictionary


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "relu", "jumprelu"])
def test_what_is_written_reads_back_exactly(kind, tmp_path):
    before = dictionary_of(kind)
    write_saelens(before, tmp_path / "sae")
    after = read_saelens(tmp_path / "sae")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    assert (after.reads, after.apply_b_dec_to_input) == (before.reads, before.apply_b_dec_to_input)
    x = draw_activations()
    assert torch.equal(after.encode(x).dense(), before.encode(x).dense())
    assert torch.equal(after(x), before(x))


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "relu", "jumprelu"])
def test_what_is_written_has_the_documented_layout(kind, tmp_path):
    dictionary = dictionary_of(kind)
    write_saelens(dictionary, tmp_path, model_name="gpt2")
    config = json.loads((tmp_path / "cfg.json").read_text())
    weights = load_file(tmp_path / "sae_weights.safetensors")
    architecture = {"relu": "standard", "batchtopk": "jumprelu"}.get(kind, kind)
    assert config["architecture"] == architecture
    assert {k: list(v.shape) for k, v in weights.items()} == {
        k: list(v.shape) for k, v in weights_of(architecture).items()
    }
    assert config["metadata"]["hook_name"] == (None if kind == "jumprelu" else HOOK)
    assert config["metadata"]["model_name"] == "gpt2"
    # The slow definition, reading only the files, agrees with the dictionary.
    assert_same_forward(dictionary, config, weights)
    assert not (tmp_path / "sparsity.safetensors").exists()


def test_an_exported_batchtopk_still_cites_its_paper(tmp_path):
    write_saelens(dictionary_of("batchtopk"), tmp_path)
    assert read_saelens(tmp_path).references == ("bussmann2024",)


def test_firing_rates_become_log_sparsity(tmp_path):
    rates = torch.zeros(F)
    rates[0] = 0.01
    write_saelens(dictionary_of("topk"), tmp_path, firing_rates=rates)
    sparsity = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    torch.testing.assert_close(sparsity, torch.tensor([-2.0] + [-10.0] * (F - 1)))


def test_nothing_is_overwritten_unless_forced(tmp_path):
    write_saelens(dictionary_of("topk"), tmp_path)
    with pytest.raises(OutputExistsError, match=r"with a cfg\.json in it"):
        write_saelens(dictionary_of("relu"), tmp_path)
    write_saelens(dictionary_of("relu"), tmp_path, force=True)
    assert read_saelens(tmp_path).activation.kind == "relu"


def test_a_dictionary_that_is_not_calibrated_is_not_written(tmp_path):
    dictionary = BatchTopK(width=F, k=K).build(D, D, torch.zeros(D), generator(0), SITE)
    with pytest.raises(ValueRangeError, match="calibrated threshold to be exported; got none"):
        write_saelens(dictionary, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_a_dictionary_between_two_sites_is_not_written(tmp_path):
    dictionary = dictionary_of("topk")
    dictionary.writes = Site(role="mlp_out", layer=3)
    with pytest.raises(ShapeError, match="reconstruct what they read"):
        write_saelens(dictionary, tmp_path)


def test_half_precision_is_read_as_single(tmp_path):
    weights = {name: tensor.bfloat16() for name, tensor in weights_of("standard").items()}
    dictionary = read_saelens(write_by_hand(tmp_path, config_of("standard"), weights))
    assert dictionary.W_enc.dtype == torch.float32
    assert torch.equal(dictionary.W_enc, weights["W_enc"].float())


def test_the_caller_can_say_where_it_belongs(tmp_path):
    config = config_of("standard")
    config["metadata"]["hook_name"] = "model.layers.3"
    write_by_hand(tmp_path, config, weights_of("standard"))
    with pytest.raises(ValueRangeError, match=r"got 'model\.layers\.3'\. Pass site="):
        read_saelens(tmp_path)
    assert read_saelens(tmp_path, site=SITE).reads == SITE


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    def refuse(self, folder, error, message):
        with pytest.raises(error, match=message):
            read_saelens(folder)

    @pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
    def test_a_missing_file(self, name, tmp_path):
        write_by_hand(tmp_path, config_of("standard"), weights_of("standard"))
        (tmp_path / name).unlink()
        self.refuse(tmp_path, CorruptFileError, f"must hold {name}; got none")

    def test_a_truncated_file(self, tmp_path):
        write_by_hand(tmp_path, config_of("standard"), weights_of("standard"))
        path = tmp_path / "sae_weights.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        self.refuse(tmp_path, CorruptFileError, r"sae_weights\.safetensors' must be a whole")

    def test_a_transposed_decoder(self, tmp_path):
        weights = weights_of("standard")
        weights["W_dec"] = weights["W_dec"].t().contiguous()
        write_by_hand(tmp_path, config_of("standard"), weights)
        self.refuse(
            tmp_path,
            ShapeError,
            r"sae_weights\.safetensors': W_dec must have the shape \[24, 6\]; got \[6, 24\]\. Tra",
        )

    @pytest.mark.parametrize(
        ("architecture", "name"), [("jumprelu", "threshold"), ("batchtopk", "topk_threshold")]
    )
    def test_a_missing_threshold(self, architecture, name, tmp_path):
        weights = weights_of(architecture)
        del weights[name]
        write_by_hand(tmp_path, config_of(architecture), weights)
        self.refuse(tmp_path, CorruptFileError, rf"safetensors': the tensor {name} must be there")

    def test_a_tensor_too_many(self, tmp_path):
        weights = weights_of("standard") | {"W_skip": torch.zeros(D, D)}
        write_by_hand(tmp_path, config_of("standard"), weights)
        self.refuse(tmp_path, ValueRangeError, "got also W_skip")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, bad, tmp_path):
        weights = weights_of("standard")
        weights["b_enc"][3] = bad
        write_by_hand(tmp_path, config_of("standard"), weights)
        self.refuse(tmp_path, NonFiniteError, "b_enc must be finite; got 1 entries")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"architecture": "temporal"},
                "architecture must be one of standard, .* got 'temporal'",
            ),
            ({"normalize_activations": "layer_norm"}, "normalize_activations .* got 'layer_norm'"),
            ({"normalize_activations": "covariance_whitening"}, "got 'covariance_whitening'"),
            ({"reshape_activations": "hook_z"}, "reshape_activations .* got 'hook_z'"),
            ({"noise": 3}, r"cfg\.json': noise must be a key that this reader knows; got 3"),
        ],
    )
    def test_a_key_that_is_not_understood(self, changes, message, tmp_path):
        write_by_hand(tmp_path, config_of("standard") | changes, weights_of("standard"))
        self.refuse(tmp_path, ValueRangeError, message)

    def test_topk_without_its_k(self, tmp_path):
        config = config_of("topk")
        del config["k"]
        write_by_hand(tmp_path, config, weights_of("topk"))
        self.refuse(tmp_path, ValueRangeError, "k must be a number of at least 1; got None")

    def test_a_config_without_its_width(self, tmp_path):
        config = config_of("standard")
        del config["d_sae"]
        write_by_hand(tmp_path, config, weights_of("standard"))
        self.refuse(tmp_path, CorruptFileError, "d_sae must be a whole number; got None")

    def test_a_row_of_zeros_where_values_are_divided_by_norms(self, tmp_path):
        weights = weights_of("topk")
        weights["W_dec"][5] = 0
        write_by_hand(tmp_path, config_of("topk", rescale_acts_by_decoder_norm=True), weights)
        self.refuse(tmp_path, ValueRangeError, "must not be zero .* got 1 of them")
