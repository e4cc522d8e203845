import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    UnknownNameError,
    UnsupportedModelError,
)
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.testing import tiny_model

TOKENS = torch.arange(10).view(2, 5)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / saved.name))


def test_the_bundled_model_speaks_python():
    subject = load_subject("bundled")
    assert subject.name == "bundled"
    assert subject.vocab_size == 2048
    assert subject.tokenizer is not None
    assert subject.sites()[0] == Site("resid_pre", 0)
    assert not any(parameter.requires_grad for parameter in subject.module.parameters())
    assert " self" in subject.token_strings(range(subject.vocab_size))


def test_a_folder_an_object_and_a_path_are_the_same_model(saved):
    by_text, by_path = load_subject(str(saved)), load_subject(saved)
    assert by_text.name == by_path.name == "tiny-llama"
    assert by_text.tokenizer is None
    given = load_subject(tiny_model("llama"))
    assert by_text.fingerprint() == by_path.fingerprint() == given.fingerprint()
    torch.testing.assert_close(by_text.run(TOKENS).logits, given.run(TOKENS).logits)
    assert by_text.module.config._attn_implementation == "eager"


def test_dtype_is_of_what_is_loaded_here(saved):
    half = load_subject(saved, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    site = Site("resid_mid", 1)
    assert half.run(TOKENS, read=[site]).activations[site].dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "gpt_neox", "falcon"])
def test_half_precision_models_verify(family):
    assert load_subject(tiny_model(family).bfloat16()).dtype == torch.bfloat16


def test_a_module_that_is_no_language_model_has_ports():
    subject = load_subject(nn.Sequential(nn.Linear(2, 3)))
    assert subject.sites() == (Site.parse("0:out"),)
    assert (subject.n_layers, subject.d_model, subject.vocab_size) == (0, 0, 0)


def test_progress_bars_are_as_before(saved):
    shown = logging.is_progress_bar_enabled()
    load_subject(saved)
    assert logging.is_progress_bar_enabled() == shown


def test_a_misspelt_folder_suggests_its_neighbours(saved):
    with pytest.raises(UnknownNameError, match=r"Did you mean '.*tiny-llama'"):
        load_subject(saved.with_name("tiny-lama"))
    with pytest.raises(UnknownNameError, match=r"no config\.json.*Did you mean"):
        load_subject(saved.parent)


@pytest.mark.parametrize("name", ["bundel", "nobody/nothing"])
def test_a_name_that_cannot_be_fetched_is_an_error_in_words(name):
    with pytest.raises(UnknownNameError, match="no folder here, and Hugging Face") as caught:
        load_subject(name)
    assert ("Did you mean 'bundled'" in str(caught.value)) == (name == "bundel")


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_truncated_weights_are_refused(copy, size):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(CorruptFileError, match="must be whole safetensors files"):
        load_subject(copy)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_that_do_not_fit_are_refused_and_not_drawn_at_random(copy, damage):
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptFileError, match=rf"such as '{name}'"):
        load_subject(copy)


def test_weights_that_are_not_numbers_are_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="logits must be finite; got NaN"):
        load_subject(copy)


def test_a_damaged_configuration_is_refused(copy):
    (copy / "config.json").write_text('{"model_type":')
    with pytest.raises(CorruptFileError, match="readable configuration"):
        load_subject(copy)


@pytest.mark.parametrize("kind", ["zork", "t5"])
def test_what_is_no_causal_language_model_is_refused(copy, kind):
    (copy / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnsupportedModelError, match="causal language model that transformers"):
        load_subject(copy)
