"""Sizes of models from their configurations, against the models themselves."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelassay.core.errors import UnknownNameError, UnsupportedModelError
from modelassay.fitting.forecast_model import blocks_until, model_shape
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 11}
MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "vocab_size": 11,
}


def configured(folder: Path, config: Mapping[str, str | int]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_bundled_model_has_the_sizes_that_it_has_when_loaded():
    shape, subject = model_shape("bundled"), load_subject("bundled")
    assert (shape.layers, shape.heads, shape.d_model) == (
        subject.n_layers,
        subject.n_heads,
        subject.d_model,
    )
    assert shape.parameters == sum(p.numel() for p in subject.module.parameters())
    # Each of 6 blocks: 4 attention matrices of 128 x 128, 3 of an MLP of 128 x 512.
    assert shape.block_parameters == 6 * (4 * 128**2 + 3 * 128 * 512)


def test_a_folder_with_nothing_but_a_configuration_is_enough(tmp_path: Path):
    shape = model_shape(configured(tmp_path, GPT2))
    assert (shape.name, shape.layers, shape.attention_width) == (tmp_path.name, 3, 16)
    # 4 d^2 of attention and 8 d^2 of the MLP in each block.
    assert shape.block_parameters == 3 * 12 * 16**2


def test_a_site_tells_how_many_blocks_run():
    assert blocks_until(Site.parse("resid_pre.0"), 6) == 0
    assert blocks_until(Site.parse("resid_pre.2"), 6) == 2
    assert blocks_until(Site.parse("resid_post.2"), 6) == 3
    assert blocks_until(Site.parse("mlp_out.5"), 6) == 6


def test_sites_that_are_not_there_or_of_another_width_are_refused():
    with pytest.raises(UnknownNameError, match="Layer must be one of: 0, 1, 2; got '3'"):
        blocks_until(Site.parse("resid_post.3"), 3)
    with pytest.raises(UnsupportedModelError, match=r"as wide .* got mlp_hidden\.1"):
        blocks_until(Site.parse("mlp_hidden.1"), 3)


def test_experts_are_refused_because_a_token_uses_only_some(tmp_path: Path):
    with pytest.raises(UnsupportedModelError, match=r"experts .* Give --parameters"):
        model_shape(configured(tmp_path, MIXTRAL))


def test_a_folder_without_a_known_configuration_is_refused(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"Model must be one of: bundled.*--parameters"):
        model_shape(tmp_path)
    with pytest.raises(UnknownNameError, match=r"Model must be one of: bundled.*--parameters"):
        model_shape(configured(tmp_path, {"model_type": "no such kind"}))
