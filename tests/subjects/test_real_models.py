"""Real models that this project did not make: parity with stored logits and hidden states."""

import itertools

import pytest
import torch
from safetensors.torch import load_file

from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site


@pytest.mark.parametrize("name", ["stories260k", "babyllama105", "shakespeare_gpt2_char"])
def test_parity_with_the_reference(shared_data, name):
    subject = load_subject(shared_data / name)
    reference = load_file(shared_data / name / "reference.safetensors")
    tokens = reference["input_ids"]
    sites = [Site("resid_pre", layer) for layer in range(subject.n_layers)]
    last = Site("resid_post", subject.n_layers - 1)
    run = subject.run(tokens, read=[*sites, last])
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(run.logits, reference["logits"], **close)
    for layer, site in enumerate(sites):
        torch.testing.assert_close(
            run.activations[site], reference[f"hidden_states.{layer}"], **close
        )
    # transformers norms the last one.
    torch.testing.assert_close(
        subject.final_norm(run.activations[last]),
        reference[f"hidden_states.{subject.n_layers}"],
        **close,
    )
    torch.testing.assert_close(subject.logits_of(run.activations[last]), run.logits, **close)


def test_stories_from_the_beginning(shared_data):
    subject = load_subject(shared_data / "stories260k")
    start = torch.tensor([[subject.tokenizer.bos_token_id]])
    text = subject.tokenizer.decode(
        subject.generate(start, max_new_tokens=48)[0], skip_special_tokens=True
    )
    assert text.startswith(
        "Once upon a time, there was a little girl named Lily. "
        "She loved to play outside in the park."
    )


def test_stories_tokens_keep_their_spaces(shared_data):
    subject = load_subject(shared_data / "stories260k")
    ids = subject.tokenizer("Once upon a time, Lily", add_special_tokens=False)["input_ids"]
    assert "".join(subject.token_strings(ids)).strip() == "Once upon a time, Lily"


def test_the_sorting_model_sorts_all_its_inputs(shared_data):
    subject = load_subject(shared_data / "sort_gpt2_nano")
    assert subject.tokenizer is None
    digits = torch.tensor(list(itertools.product(range(3), repeat=6)))
    assert torch.equal(subject.generate(digits, max_new_tokens=6)[:, 6:], digits.sort(dim=1).values)
