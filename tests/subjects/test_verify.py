"""Structures that are wrong in one place must not verify."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import UnsupportedModelError
from modelassay.subjects.hooks import Port
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import tiny_subject
from modelassay.subjects.verify import sample_tokens, verify


def with_ports(subject, **ports):
    structure = replace(subject.structure, ports={**subject.structure.ports, **ports})
    return Subject(
        name="changed",
        module=subject.module,
        tokenizer=None,
        structure=structure,
        context_tokens=subject.context_tokens,
    )


def test_the_structure_that_was_found_verifies_again():
    subject = tiny_subject("gemma2")
    verify(with_ports(subject))


@pytest.mark.parametrize(
    ("family", "role", "port", "message"),
    [
        # What the attention returns, before the norm that Gemma puts behind it.
        ("gemma2", "attn_out", Port("self_attn", "out"), r"resid_pre \+ attn_out must equal"),
        ("gemma2", "mlp_out", Port("mlp", "out"), r"resid_mid \+ mlp_out must equal"),
        ("llama", "resid_mid", Port("input_layernorm", "in"), r"must equal resid_mid"),
        ("gptj", "mlp_out", Port("attn", "out"), r"attn_out \+ mlp_out must equal resid_post"),
        # What attention returns beside its output is not what it used.
        ("llama", "head_out", Port("self_attn", "out", 1), "edit of head_out.1 must"),
    ],
)
def test_a_wrong_place_is_refused(family, role, port, message):
    wrong = with_ports(tiny_subject(family), **{role: port})
    with pytest.raises(UnsupportedModelError, match=message):
        verify(wrong)


def test_a_place_that_does_nothing_is_refused():
    subject = tiny_subject("llama")
    for block in subject.module.model.layers:
        block.mlp.down_proj.weight.data.zero_()
    with pytest.raises(UnsupportedModelError, match=r"edit of mlp_in\.1 must change the logits"):
        verify(with_ports(subject))


def test_sample_tokens_fit_the_model_and_repeat():
    tokens = sample_tokens(5, 3, seed=0)
    assert tokens.shape == (2, 3)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 5
    assert torch.equal(tokens, sample_tokens(5, 3, seed=0))
