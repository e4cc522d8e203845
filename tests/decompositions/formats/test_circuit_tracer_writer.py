"""Cross-layer transcoders written in circuit-tracer's layout."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modelassay.core.errors import OutputExistsError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.decoder_rows import HeldRows
from modelassay.decompositions.formats.circuit_tracer_cross_layer import (
    read_circuit_tracer_cross_layer,
)
from modelassay.decompositions.formats.circuit_tracer_writer import (
    write_circuit_tracer_cross_layer,
)
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

L, D, F = 3, 5, 8


def transcoder(
    activations: Sequence[Sparsifier],
    *,
    role: str = "mlp_in",
    first: int = 0,
    widths: Sequence[int] = (F,) * L,
    skips: bool = False,
) -> CrossLayerTranscoder:
    draw = generator(1)
    return CrossLayerTranscoder(
        sources=[
            Source(
                reads=Site(role, first + i),
                W_enc=torch.randn(D, width, generator=draw),
                b_enc=torch.randn(width, generator=draw),
                activation=activations[i],
                decoders=HeldRows(weight=torch.randn(width, L - i, D, generator=draw)),
                W_skip=torch.eye(D) if skips else None,
            )
            for i, width in enumerate(widths)
        ],
        writes=[Site("mlp_out", i) for i in range(L)],
        b_dec=torch.randn(L, D, generator=draw),
    )


def jumping() -> CrossLayerTranscoder:
    return transcoder([JumpReLUActivation(torch.rand(F) + 0.1 * i) for i in range(L)])


def assert_same(one: CrossLayerTranscoder, other: CrossLayerTranscoder) -> None:
    x = {site: 2 * torch.randn(20, D, generator=generator(2)) for site in one.reads}
    for site, expected in one(x).items():
        torch.testing.assert_close(other(x)[site], expected)


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_read_back_reconstructs_the_same(lazy: bool, tmp_path: Path):
    written = jumping()
    write_circuit_tracer_cross_layer(written, tmp_path, model_name="google/gemma-2-2b")
    again = read_circuit_tracer_cross_layer(tmp_path, lazy=lazy)
    assert (again.reads, tuple(again.writes)) == (written.reads, tuple(written.writes))
    assert_same(written, again)


def test_the_files_are_those_of_the_layout(tmp_path: Path):
    write_circuit_tracer_cross_layer(jumping(), tmp_path, model_name="google/gemma-2-2b")
    shapes = {
        name: list(tensor.shape)
        for i in range(L)
        for part in ("W_enc", "W_dec")
        for name, tensor in load_file(tmp_path / f"{part}_{i}.safetensors").items()
    }
    assert shapes == {
        **{f"W_enc_{i}": [F, D] for i in range(L)},
        **{f"W_dec_{i}": [F, L - i, D] for i in range(L)},
        **{f"b_enc_{i}": [F] for i in range(L)},
        **{f"b_dec_{i}": [D] for i in range(L)},
        **{f"threshold_{i}": [F] for i in range(L)},
    }
    assert (tmp_path / "config.yaml").read_text().splitlines() == [
        "model_name: google/gemma-2-2b",
        "model_kind: cross_layer_transcoder",
        "feature_input_hook: mlp.hook_in",
        "feature_output_hook: hook_mlp_out",
    ]


def test_sparsifiers_become_thresholds_in_every_layer_or_in_none(tmp_path: Path):
    plain = transcoder([ReLUActivation() for _ in range(L)])
    write_circuit_tracer_cross_layer(plain, tmp_path / "plain")
    assert "threshold_0" not in load_file(tmp_path / "plain/W_enc_0.safetensors")
    assert_same(plain, read_circuit_tracer_cross_layer(tmp_path / "plain"))
    mixed = transcoder([ReLUActivation(), BatchTopKActivation(2, 0.7), ReLUActivation()])
    write_circuit_tracer_cross_layer(mixed, tmp_path / "mixed")
    thresholds = [
        load_file(tmp_path / f"mixed/W_enc_{i}.safetensors")[f"threshold_{i}"] for i in range(L)
    ]
    torch.testing.assert_close(torch.stack(thresholds)[:, 0], torch.tensor([0.0, 0.7, 0.0]))
    assert_same(mixed, read_circuit_tracer_cross_layer(tmp_path / "mixed"))


def test_decoders_left_in_their_files_are_written_again(tmp_path: Path):
    write_circuit_tracer_cross_layer(jumping(), tmp_path / "one")
    lazy = read_circuit_tracer_cross_layer(tmp_path / "one", lazy=True)
    write_circuit_tracer_cross_layer(lazy, tmp_path / "two")
    assert_same(lazy, read_circuit_tracer_cross_layer(tmp_path / "two"))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: transcoder([TopKActivation(2)] * L), "relu, jumprelu or batchtopk.*; got topk"),
        (lambda: transcoder([ReLUActivation()] * L, skips=True), "no skip connections.*mlp_in.0"),
        (
            lambda: transcoder([ReLUActivation()] * L, widths=(F, F, F + 1)),
            "as many latents in every layer.*; got 8 and 9",
        ),
        (lambda: transcoder([ReLUActivation()] * L, first=1), "every layer from 0 on.*mlp_in.1"),
        (lambda: transcoder([ReLUActivation()] * L, role="attn_out"), "reads must be one of"),
        (lambda: transcoder([BatchTopKActivation(2)] * L), "must have a calibrated threshold"),
    ],
)
def test_what_has_no_form_is_refused_and_nothing_is_written(made, message, tmp_path: Path):
    with pytest.raises(ValueRangeError, match=message):
        write_circuit_tracer_cross_layer(made(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_and_names_that_yaml_would_read_otherwise_are_refused(tmp_path: Path):
    with pytest.raises(ValueRangeError, match="A model's name must be letters"):
        write_circuit_tracer_cross_layer(jumping(), tmp_path, model_name="a: b")
    write_circuit_tracer_cross_layer(jumping(), tmp_path)
    with pytest.raises(OutputExistsError, match="must be new; got"):
        write_circuit_tracer_cross_layer(jumping(), tmp_path)
    write_circuit_tracer_cross_layer(jumping(), tmp_path, force=True)
