"""Cross-layer transcoders in their libraries' layouts, against slow definitions."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelassay.core.errors import CorruptFileError, NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.formats.circuit_tracer_cross_layer import (
    read_circuit_tracer_cross_layer,
)
from modelassay.decompositions.formats.gemma_scope_cross_layer import (
    read_gemma_scope_cross_layer,
)
from modelassay.decompositions.formats.llamascopium_cross_layer import (
    read_llamascopium_cross_layer,
)
from modelassay.subjects.site import Site

L, D, F, N = 3, 5, 8, 15
READS = [Site("mlp_in", layer) for layer in range(L)]
WRITES = [Site("mlp_out", layer) for layer in range(L)]
MIDS = [Site("resid_mid", layer) for layer in range(L)]
CONFIG = "model_name: m\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"


def random_layers():
    source = generator(1)
    draw = lambda *shape: torch.randn(*shape, generator=source)  # noqa: E731
    return [
        {
            "W_enc": draw(D, F),
            "b_enc": draw(F),
            "threshold": draw(F).abs() + 0.1,
            "W_dec": draw(F, L - i, D),
            "b_dec": draw(D),
            "W_skip": draw(D, D),
        }
        for i in range(L)
    ]


def activations():
    return [torch.randn(N, D, generator=generator(i + 5)) * 2 for i in range(L)]


def slow(layers, x, latents, *, skips=False):
    """ŷ_m of latents [source][token, latent], in float64."""
    outputs = []
    for m in range(L):
        y = layers[m]["b_dec"].double().repeat(N, 1)
        for source in range(m + 1):
            y = y + latents[source] @ layers[source]["W_dec"][:, m - source].double()
        if skips:
            y = y + x[m].double() @ layers[m]["W_skip"].double()
        outputs.append(y)
    return outputs


def pre_activations(w, x):
    return x.double() @ w["W_enc"].double() + w["b_enc"].double()


def jump(pre, threshold):
    return torch.where(pre > threshold.double(), pre, 0.0)


def assert_outputs(transcoder, x, expected, reads=READS):
    found = transcoder(dict(zip(reads, x, strict=True)))
    for site, y in zip(WRITES, expected, strict=True):
        torch.testing.assert_close(found[site], y.float(), atol=1e-4, rtol=1e-4)


def write_circuit_tracer(folder, layers, *, jumps=True):
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    for i, w in enumerate(layers):
        encoder = {f"W_enc_{i}": w["W_enc"].t().contiguous()}
        encoder |= {f"{name}_{i}": w[name] for name in ("b_enc", "b_dec")}
        if jumps:
            encoder[f"threshold_{i}"] = w["threshold"]
        save_file(encoder, folder / f"W_enc_{i}.safetensors")
        save_file({f"W_dec_{i}": w["W_dec"]}, folder / f"W_dec_{i}.safetensors")
    return folder


def write_gemma_scope(folder, layers, *, skips=True, hooks=True):
    folder.mkdir(exist_ok=True)
    config = {"architecture": "jump_relu", "affine_connection": skips}
    if hooks:
        for key, part in (("in", "pre_feedforward"), ("out", "post_feedforward")):
            config[f"hf_hook_point_{key}"] = [
                f"model.layers.{i}.{part}_layernorm.output" for i in range(L)
            ]
    (folder / "config.json").write_text(json.dumps(config))
    for i, w in enumerate(layers):
        tensors = {name.lower(): w[name] for name in ("W_enc", "b_enc", "b_dec", "threshold")}
        # Decoders to layers before a source's own are in the file and no part of it.
        tensors["w_dec"] = torch.cat([torch.full((F, i, D), 9.0), w["W_dec"]], 1)
        if skips:
            tensors["affine_skip_connection"] = w["W_skip"]
        save_file(tensors, folder / f"params_layer_{i}.safetensors")
    return folder


NORM_IN, NORM_OUT = [3.0, 7.0, 11.0], [2.0, 5.0, 13.0]


def write_llamascopium(folder, layers, **changes):
    folder.mkdir(exist_ok=True)
    hooks_in = [f"blocks.{i}.hook_resid_mid" for i in range(L)]
    hooks_out = [f"blocks.{i}.hook_mlp_out" for i in range(L)]
    config = {
        "sae_type": "clt", "d_model": D, "expansion_factor": F / D, "act_fn": "jumprelu",
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "top_k": 3,
        "use_decoder_bias": True, "hook_points_in": hooks_in, "hook_points_out": hooks_out,
    } | changes  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {
        "W_E": torch.stack([w["W_enc"] for w in layers]),
        "b_E": torch.stack([w["b_enc"] for w in layers]),
    }
    if config["act_fn"] == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = torch.stack(
            [w["threshold"].log() for w in layers]
        )
    for m in range(L):
        tensors[f"W_D.{m}"] = torch.stack([layers[i]["W_dec"][:, m - i] for i in range(m + 1)])
        tensors[f"b_D.{m}"] = layers[m]["b_dec"]
    norms = dict(zip(hooks_in + hooks_out, NORM_IN + NORM_OUT, strict=True))
    for hook, norm in norms.items():
        tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(norm)
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("jumps", [False, True])
def test_circuit_tracers_forward_pass_is_that_of_the_definition(jumps, lazy, tmp_path):
    layers, x = random_layers(), activations()
    made = read_circuit_tracer_cross_layer(
        write_circuit_tracer(tmp_path, layers, jumps=jumps), lazy=lazy
    )
    bounds = [w["threshold"] if jumps else torch.zeros(F) for w in layers]
    latents = [jump(pre_activations(layers[i], x[i]), bounds[i]) for i in range(L)]
    assert_outputs(made, x, slow(layers, x, latents))
    assert (list(made.reads), list(made.writes)) == (READS, WRITES)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("skips", [False, True])
def test_gemma_scopes_forward_pass_is_that_of_the_definition(skips, lazy, tmp_path):
    layers, x = random_layers(), activations()
    made = read_gemma_scope_cross_layer(write_gemma_scope(tmp_path, layers, skips=skips), lazy=lazy)
    latents = [jump(pre_activations(layers[i], x[i]), layers[i]["threshold"]) for i in range(L)]
    assert_outputs(made, x, slow(layers, x, latents, skips=skips))
    # The last layer is there: a peer's loader drops it.
    assert len(made.sources) == L
    assert (list(made.reads), list(made.writes)) == (READS, WRITES)


def slow_llamascopium(layers, x, act_fn, *, scaled, by_norm):
    """Scale, encode, choose by norm, decode, scale back: as the library does it in training."""
    s_in = [math.sqrt(D) / n if scaled else 1 for n in NORM_IN]
    s_out = [math.sqrt(D) / n if scaled else 1 for n in NORM_OUT]
    latents = []
    for i, w in enumerate(layers):
        pre = pre_activations(w, x[i].double() * s_in[i])
        n = w["W_dec"].double().square().sum((1, 2)).sqrt() if by_norm else torch.ones(F)
        if act_fn == "jumprelu":
            kept = pre * n > w["threshold"].double()
        elif act_fn == "topk":
            kept = torch.zeros(N, F).scatter_(1, (pre * n).topk(3).indices, 1).bool()
        else:
            kept = pre > 0
        latents.append(torch.where(kept & (pre > 0), pre, 0.0))
    return [y / s for y, s in zip(slow(layers, x, latents), s_out, strict=True)]


@pytest.mark.parametrize("act_fn", ["jumprelu", "topk", "relu"])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
@pytest.mark.parametrize("by_norm", [True, False])
def test_llamascopiums_forward_pass_is_that_of_the_definition(act_fn, norm, by_norm, tmp_path):
    layers, x = random_layers(), activations()
    write_llamascopium(
        tmp_path, layers, act_fn=act_fn, norm_activation=norm, sparsity_include_decoder_norm=by_norm
    )
    made = read_llamascopium_cross_layer(tmp_path)
    expected = slow_llamascopium(layers, x, act_fn, scaled=norm != "inference", by_norm=by_norm)
    assert_outputs(made, x, expected, reads=MIDS)
    assert (list(made.reads), list(made.writes)) == (MIDS, WRITES)


WRITE = {
    "circuit_tracer": (read_circuit_tracer_cross_layer, write_circuit_tracer, "W_enc_{}"),
    "gemma_scope": (read_gemma_scope_cross_layer, write_gemma_scope, "params_layer_{}"),
}


class TestRefusals:
    """Each names the file, the key, what was expected and what was found."""

    @pytest.mark.parametrize("peer", WRITE)
    @pytest.mark.parametrize("layer", range(L))
    def test_a_layer_lost_among_many(self, peer, layer, tmp_path):
        read, write, name = WRITE[peer]
        file = f"{name.format(layer)}.safetensors"
        (write(tmp_path, random_layers()) / file).unlink()
        with pytest.raises(CorruptFileError, match=f"must hold {file}; got 2 other layers"):
            read(tmp_path)

    @pytest.mark.parametrize("lazy", [False, True])
    def test_a_lost_decoder(self, lazy, tmp_path):
        (write_circuit_tracer(tmp_path, random_layers()) / "W_dec_1.safetensors").unlink()
        with pytest.raises(CorruptFileError, match=r"must hold W_dec_1\.safetensors"):
            read_circuit_tracer_cross_layer(tmp_path, lazy=lazy)

    def test_a_lost_target(self, tmp_path):
        write_llamascopium(tmp_path, random_layers())
        path = tmp_path / "sae_weights.safetensors"
        tensors = load_file(path)
        del tensors["W_D.2"]
        save_file(tensors, path)
        with pytest.raises(CorruptFileError, match=r"tensor W_D\.2 must be there, of shape \[3"):
            read_llamascopium_cross_layer(tmp_path)

    @pytest.mark.parametrize("peer", WRITE)
    def test_a_layer_of_another_transcoder(self, peer, tmp_path):
        read, write, name = WRITE[peer]
        write(tmp_path, random_layers())
        last = tmp_path / f"{name.format(L)}.safetensors"
        last.write_bytes((tmp_path / f"{name.format(L - 1)}.safetensors").read_bytes())
        with pytest.raises(
            ValueRangeError, match=f"must hold 3 layers, .* got 4, such as {name[:5]}"
        ):
            read(tmp_path)

    def test_a_threshold_that_one_layer_lacks(self, tmp_path):
        path = write_circuit_tracer(tmp_path, random_layers()) / "W_enc_2.safetensors"
        tensors = load_file(path)
        del tensors["threshold_2"]
        save_file(tensors, path)
        with pytest.raises(CorruptFileError, match=r"W_enc_2.*tensor threshold_2 must be there"):
            read_circuit_tracer_cross_layer(tmp_path)

    @pytest.mark.parametrize("lazy", [False, True])
    def test_a_transposed_decoder(self, lazy, tmp_path):
        write_circuit_tracer(tmp_path, random_layers())
        turned = random_layers()[1]["W_dec"].permute(2, 1, 0).contiguous()
        save_file({"W_dec_1": turned}, tmp_path / "W_dec_1.safetensors")
        with pytest.raises(ShapeError, match=r"W_dec_1 must have the shape \[8, 2, 5\]; got \[5,"):
            read_circuit_tracer_cross_layer(tmp_path, lazy=lazy)

    def test_a_transposed_encoder(self, tmp_path):
        layers = random_layers()
        layers[1]["W_enc"] = layers[1]["W_enc"].t().contiguous()
        write_gemma_scope(tmp_path, layers)
        with pytest.raises(ShapeError, match=r"params_layer_1.*w_enc must .* Transpose it"):
            read_gemma_scope_cross_layer(tmp_path)

    def test_a_skip_that_the_config_denies_or_the_file_lacks(self, tmp_path):
        write_gemma_scope(tmp_path, random_layers(), skips=True)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"affine_connection": False}))
        with pytest.raises(ValueRangeError, match="got also affine_skip_connection"):
            read_gemma_scope_cross_layer(tmp_path)
        write_gemma_scope(tmp_path, random_layers(), skips=False)
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CorruptFileError, match="affine_skip_connection must be there"):
            read_gemma_scope_cross_layer(tmp_path)

    def test_sites_that_nothing_names(self, tmp_path):
        write_gemma_scope(tmp_path, random_layers(), hooks=False)
        with pytest.raises(ValueRangeError, match="reads must name a site for each of 3 layers"):
            read_gemma_scope_cross_layer(tmp_path)
        with pytest.raises(ValueRangeError, match=r"writes must name .* got 2"):
            read_gemma_scope_cross_layer(tmp_path, reads=READS, writes=WRITES[:2])
        assert (
            read_gemma_scope_cross_layer(tmp_path, reads=READS, writes=WRITES).reads[2]
            == (READS[2])
        )

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"sae_type": "crosscoder"}, ValueRangeError, "sae_type must be 'clt'; got 'cross"),
            ({"act_fn": "batchlayertopk"}, ValueRangeError, "act_fn must be relu, jumprelu or"),
            ({"norm_activation": "token-wise"}, ValueRangeError, "norm_activation must be data"),
            ({"use_glu_encoder": True}, ValueRangeError, "use_glu_encoder must be false"),
            ({"hook_points_out": ["a"]}, CorruptFileError, "hook_points_out must name one hook"),
            ({"hook_points_in": ["a"] * L}, ValueRangeError, "hook_points_in must be a hook of a"),
            ({"expansion_factor": None}, CorruptFileError, "expansion_factor must be a number"),
            ({"sparsity_include_decoder_norm": None}, CorruptFileError, "must be true or false"),
        ],
    )
    def test_a_config_that_is_not_understood(self, changes, error, message, tmp_path):
        write_llamascopium(tmp_path, random_layers(), **changes)
        with pytest.raises(error, match=message):
            read_llamascopium_cross_layer(tmp_path)

    @pytest.mark.parametrize("bad", [None, float("nan"), -1.0])
    def test_a_scale_that_is_missing_or_no_length(self, bad, tmp_path):
        path = write_llamascopium(tmp_path, random_layers()) / "sae_weights.safetensors"
        tensors = load_file(path)
        key = "dataset_average_activation_norm.blocks.1.hook_mlp_out"
        del tensors[key]
        save_file(tensors | ({} if bad is None else {key: torch.tensor(bad)}), path)
        with pytest.raises(CorruptFileError, match=f"{key} must be there, a number above 0"):
            read_llamascopium_cross_layer(tmp_path)

    def test_shards_of_a_distributed_training(self, tmp_path):
        folder = write_llamascopium(tmp_path, random_layers())
        (folder / "sae_weights.safetensors").rename(folder / "sae_weights.dcp")
        with pytest.raises(CorruptFileError, match=r"got sae_weights\.dcp, shards"):
            read_llamascopium_cross_layer(folder)

    def test_weights_that_are_not_finite(self, tmp_path):
        layers = random_layers()
        layers[2]["b_enc"][3] = torch.inf
        write_circuit_tracer(tmp_path, layers)
        with pytest.raises(NonFiniteError, match=r"W_enc_2.*b_enc_2 must be finite; got 1"):
            read_circuit_tracer_cross_layer(tmp_path)
