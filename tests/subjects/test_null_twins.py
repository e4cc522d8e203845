import pytest
import torch
from torch import nn

from modelassay.core.errors import UnknownNameError
from modelassay.subjects.load import load_subject
from modelassay.subjects.null_twins import null_twin
from modelassay.subjects.site import Site
from modelassay.subjects.testing import tiny_model, tiny_subject

KINDS = ("reinitialised", "permuted")
TOKENS = torch.arange(12).view(2, 6)
EMBEDDINGS = {
    "gpt2": ["transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"],
    "opt": [
        "model.decoder.embed_tokens.weight",
        "model.decoder.embed_positions.weight",
        "lm_head.weight",
    ],
    "gpt_neox": ["gpt_neox.embed_in.weight", "lm_head.weight"],
}


def twin_of(subject, kind, keep=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return null_twin(subject, kind, keep_embeddings=keep, generator=generator)


@pytest.mark.parametrize("family", list(EMBEDDINGS))
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_keeps_the_embeddings_or_nothing(family, kind, keep):
    subject = tiny_subject(family)
    original = {name: value.clone() for name, value in subject.module.state_dict().items()}
    before, state = subject.fingerprint(), torch.get_rng_state()
    twin = twin_of(subject, kind, keep)
    assert subject.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    kept = set(EMBEDDINGS[family]) if keep else set()
    for name, value in twin.module.state_dict().items():
        same = torch.equal(value, original[name])
        # A tensor of equal entries has no other permutation.
        assert same == (name in kept) or original[name].unique().numel() == 1, name
    assert twin.run(TOKENS, read=[Site("mlp_out", 0)]).logits.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_is_decided_by_its_generator(kind):
    subject = tiny_subject("gpt2")
    assert twin_of(subject, kind, seed=0).fingerprint() == twin_of(subject, kind).fingerprint()
    assert (
        twin_of(subject, kind, seed=0).fingerprint() != twin_of(subject, kind, seed=1).fingerprint()
    )


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_tied_weights_stay_tied(kind, keep):
    twin = twin_of(tiny_subject("gpt2"), kind, keep)
    assert twin.module.lm_head.weight is twin.module.transformer.wte.weight


def test_permuting_keeps_every_tensors_entries():
    subject = tiny_subject("llama")
    twin = twin_of(subject, "permuted")
    for (name, mine), theirs in zip(
        subject.module.named_parameters(), twin.module.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.flatten().sort().values, theirs.flatten().sort().values)
        assert not torch.equal(mine, theirs), name


def test_reinitialising_is_what_the_architecture_does():
    subject = tiny_subject("llama")
    twin = twin_of(subject, "reinitialised").module
    assert torch.equal(twin.model.norm.weight, torch.ones(32))
    deviation = twin.model.layers[0].mlp.up_proj.weight.std()
    torch.testing.assert_close(deviation, torch.tensor(0.02), rtol=0.1, atol=0)


def test_a_general_module_is_reset_or_matched():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(3 + 0.5 * torch.randn(4000))
            self.linear = nn.Linear(40, 40)

        def forward(self, x):
            return self.linear(x)

    module = Own()
    with torch.no_grad():
        module.linear.weight.fill_(7)
    twin = twin_of(load_subject(module), "reinitialised").module
    assert twin.linear.weight.abs().max() <= 40**-0.5 + 1e-6
    assert not torch.equal(twin.gain, module.gain)
    torch.testing.assert_close(twin.gain.mean(), module.gain.mean(), atol=0.05, rtol=0)
    torch.testing.assert_close(twin.gain.std(), module.gain.std(), atol=0.05, rtol=0)


def test_flags_dtype_tokenizer_and_name():
    subject = load_subject(tiny_model("llama").double().requires_grad_(False), tokenizer="mine")
    twin = twin_of(subject, "reinitialised", keep=True)
    assert twin.dtype == torch.float64
    assert not any(parameter.requires_grad for parameter in twin.module.parameters())
    assert twin.tokenizer == "mine"
    assert twin.name == "LlamaForCausalLM (reinitialised, embeddings kept)"
    assert twin.sites() == subject.sites()


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'permuted'"):
        twin_of(tiny_subject(), "permutted")
