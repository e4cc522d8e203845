"""Cross-layer transcoders against slow definitions in float64."""

import jaxtyping
import pytest
import torch
from safetensors.torch import save_file

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.cross_layer_storage import load_cross_layer, save_cross_layer
from modelassay.decompositions.decoder_rows import HeldRows, StoredRows
from modelassay.decompositions.sparsifiers import JumpReLUActivation, TopKActivation
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

L, D, F, N = 3, 5, 12, 17
READS = [Site("mlp_in", layer) for layer in range(L)]
WRITES = [Site("mlp_out", layer) for layer in range(L)]


def weights(*, skips=True):
    source = generator(0)
    draw = lambda *shape: torch.randn(*shape, generator=source)  # noqa: E731
    layers = [
        {
            "W_enc": draw(D, F),
            "b_enc": draw(F),
            "threshold": draw(F).abs(),
            "W_dec": draw(F, L - i, D),
            "W_skip": draw(D, D) if skips else None,
        }
        for i in range(L)
    ]
    return layers, draw(L, D)


def build(layers, b_dec, rows=None):
    sources = [
        Source(
            reads=READS[i],
            W_enc=w["W_enc"],
            b_enc=w["b_enc"],
            activation=JumpReLUActivation(w["threshold"]),
            decoders=rows[i] if rows else HeldRows(weight=w["W_dec"]),
            W_skip=w["W_skip"],
        )
        for i, w in enumerate(layers)
    ]
    return CrossLayerTranscoder(sources=sources, writes=WRITES, b_dec=b_dec)


def activations():
    return {site: torch.randn(N, D, generator=generator(i + 5)) for i, site in enumerate(READS)}


def slow_latents(layers, x):
    found = []
    for w, site in zip(layers, READS, strict=True):
        pre = x[site].double() @ w["W_enc"].double() + w["b_enc"].double()
        found.append(torch.where(pre > w["threshold"].double(), pre, 0.0))
    return found


def slow_outputs(layers, b_dec, x):
    """ŷ_m as a sum of loops over sources, tokens and latents."""
    latents = slow_latents(layers, x)
    outputs = {}
    for m in range(L):
        y = b_dec[m].double().repeat(N, 1)
        for source in range(m + 1):
            for token in range(N):
                for i in range(F):
                    direction = layers[source]["W_dec"][i, m - source].double()
                    y[token] += latents[source][token, i] * direction
        outputs[WRITES[m]] = y
    return outputs


@pytest.mark.parametrize("skips", [True, False])
def test_the_forward_pass_is_that_of_the_definition(skips):
    layers, b_dec = weights(skips=skips)
    made, x = build(layers, b_dec), activations()
    codes = made.encode(x)
    for site, expected in zip(READS, slow_latents(layers, x), strict=True):
        torch.testing.assert_close(codes[site].dense(), expected.float(), atol=1e-4, rtol=1e-4)
    decoded, whole = made.decode(codes), made(x)
    for m, (site, expected) in enumerate(slow_outputs(layers, b_dec, x).items()):
        torch.testing.assert_close(decoded[site], expected.float(), atol=1e-4, rtol=1e-4)
        if skips:
            expected = expected + x[READS[m]].double() @ layers[m]["W_skip"].double()
        torch.testing.assert_close(whole[site], expected.float(), atol=1e-4, rtol=1e-4)


def test_the_dictionaries_of_all_sources_sum_to_each_target():
    made, x = build(*weights()), activations()
    whole = made(x)
    for m in range(L):
        parts = [made.layer(source, m)(x[READS[source]]) for source in range(m + 1)]
        torch.testing.assert_close(sum(parts), whole[WRITES[m]], atol=1e-4, rtol=1e-4)


def test_a_layers_view_knows_its_sites_and_its_skip():
    made = build(*weights())
    own, later = made.layer(1), made.layer(1, 2)
    assert isinstance(own, SkipTranscoder)
    assert (own.reads, own.writes) == (READS[1], WRITES[1])
    assert not isinstance(later, SkipTranscoder)
    assert (later.reads, later.writes) == (READS[1], WRITES[2])
    assert not later.bias.any()


def test_rows_read_from_files_give_the_same(tmp_path):
    layers, b_dec = weights()
    rows = []
    for i, w in enumerate(layers):
        path = tmp_path / f"{i}.safetensors"
        # Two targets at the front that are none of this source's.
        save_file({"w": torch.cat([torch.full((F, 2, D), torch.nan), w["W_dec"]], 1)}, path)
        rows.append(StoredRows.open(path, "w", (F, L - i + 2, D), first=2))
    held, stored, x = build(layers, b_dec), build(layers, b_dec, rows), activations()
    for site, expected in held(x).items():
        assert torch.equal(stored(x)[site], expected)
    assert torch.equal(stored.layer(0, 2)(x[READS[0]]), held.layer(0, 2)(x[READS[0]]))


def test_it_comes_back_from_its_folder(tmp_path):
    layers, b_dec = weights()
    made, x = build(layers, b_dec), activations()
    save_cross_layer(made, tmp_path)
    back = load_cross_layer(tmp_path)
    assert (back.reads, back.writes, back.name) == (made.reads, made.writes, made.name)
    for site, expected in made(x).items():
        assert torch.equal(back(x)[site], expected)
    with pytest.raises(OutputExistsError, match="must be new"):
        save_cross_layer(made, tmp_path)


def test_no_active_latent_leaves_the_biases():
    layers, b_dec = weights(skips=False)
    for w in layers:
        w["threshold"] = torch.full((F,), 1e6)
    for m, y in enumerate(build(layers, b_dec)(activations()).values()):
        assert torch.equal(y, b_dec[m].expand(N, D))


def test_sparsifiers_that_compare_do_so_within_a_source():
    layers, b_dec = weights(skips=False)
    sources = [
        Source(
            reads=READS[i], W_enc=w["W_enc"], b_enc=w["b_enc"] + 10, activation=TopKActivation(2),
            decoders=HeldRows(weight=w["W_dec"]),
        )
        for i, w in enumerate(layers)
    ]  # fmt: skip
    made = CrossLayerTranscoder(sources=sources, writes=WRITES, b_dec=b_dec)
    for codes in made.encode(activations()).values():
        assert ((codes.dense() != 0).sum(1) == 2).all()


class TestRefusals:
    def test_a_source_left_out(self):
        made, x = build(*weights()), activations()
        del x[READS[1]]
        with pytest.raises(ValueRangeError, match=r"without \['mlp_in\.1'\]"):
            made(x)

    def test_a_site_that_it_does_not_read(self):
        with pytest.raises(UnknownNameError, match=r"got 'mlp_out\.0'"):
            build(*weights()).encode({WRITES[0]: torch.zeros(1, D)})

    def test_tokens_that_differ(self):
        x = activations()
        x[READS[2]] = x[READS[2]][:4]
        with pytest.raises(ValueRangeError, match=r"same tokens; got \[4, 17\]"):
            build(*weights())(x)

    def test_activations_that_are_not_finite(self):
        x = activations()
        x[READS[0]][3, 1] = torch.nan
        with pytest.raises(NonFiniteError, match=r"of mlp_in\.0 must be finite"):
            build(*weights()).encode(x)

    def test_a_missing_layer(self, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        layers, b_dec = weights()
        with pytest.raises(ValueRangeError, match="as many sites to read as to write"):
            build(layers[:2], b_dec)
        layers[1]["W_dec"] = layers[1]["W_dec"][:, :1]
        with pytest.raises(ShapeError, match=r"= \[2, 5\], its own .* got \[12, 1, 5\]"):
            build(layers, b_dec)

    def test_a_transposed_encoder(self, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        layers, b_dec = weights()
        layers[0]["W_enc"] = layers[0]["W_enc"].t()
        with pytest.raises(ShapeError, match=r"of mlp_in\.0 must be \[d_in, width\]"):
            build(layers, b_dec)

    def test_a_target_before_its_source(self):
        with pytest.raises(ValueRangeError, match="source 2 and target 1"):
            build(*weights()).layer(2, 1)

    def test_stored_rows_of_another_shape_or_name_or_cut_short(self, tmp_path):
        path = tmp_path / "W_dec_0.safetensors"
        save_file({"w": torch.zeros(F, L, D)}, path)
        with pytest.raises(ShapeError, match=r"W_dec_0\.safetensors': w must have .*\[12, 2, 5\]"):
            StoredRows.open(path, "w", (F, 2, D))
        with pytest.raises(CorruptFileError, match=r"tensor v must be there; got w"):
            StoredRows.open(path, "v", (F, L, D))
        rows = StoredRows.open(path, "w", (F, L, D))
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(CorruptFileError, match="must be a whole safetensors file"):
            rows.rows(torch.tensor([1]))
        path.unlink()
        with pytest.raises(CorruptFileError, match="moved"):
            rows.rows(torch.tensor([1]))

    def test_stored_rows_that_are_not_finite(self, tmp_path):
        weight = torch.zeros(F, L, D)
        weight[3] = torch.inf
        save_file({"w": weight}, tmp_path / "w.safetensors")
        rows = StoredRows.open(tmp_path / "w.safetensors", "w", (F, L, D))
        assert not rows.rows(torch.tensor([1, 2])).any()
        with pytest.raises(NonFiniteError, match=r"w must be finite; .* rows of 1 latents"):
            rows.rows(torch.tensor([1, 3]))

    def test_a_folder_of_a_dictionary(self, tmp_path):
        build(*weights()).layer(0).save(tmp_path)
        with pytest.raises(CorruptFileError, match="a skip_transcoder"):
            load_cross_layer(tmp_path)
