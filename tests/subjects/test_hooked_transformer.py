import torch
from safetensors.torch import load_file

from modelassay.subjects.hooked_transformer import HookedTransformer, load_modular_addition
from modelassay.subjects.load import verified_subject
from modelassay.subjects.site import ROLES, Site


def random_one(n_layers, d_head):
    sizes = {"vocab_size": 7, "d_model": 8, "n_heads": 2, "d_hidden": 16}
    model = HookedTransformer(context_tokens=4, n_layers=n_layers, d_head=d_head, **sizes)
    return verified_subject("random", model, None, context_tokens=4)


def test_a_random_one_verifies_with_all_roles():
    subject = random_one(n_layers=2, d_head=3)
    assert [site.role for site in subject.sites()] == [*ROLES, *ROLES]
    assert subject.final_norm is None


def test_without_norms_an_edit_of_mlp_in_leaves_the_stream_as_it_is():
    subject, tokens = random_one(n_layers=1, d_head=4), torch.tensor([[1, 2, 3]])
    mid, mlp_in, post, out = (Site(r, 0) for r in ("resid_mid", "mlp_in", "resid_post", "mlp_out"))
    clean = subject.run(tokens, read=[mid]).activations[mid]
    read = subject.run(tokens, read=[mid, mlp_in, post, out], edit={mlp_in: torch.zeros_like})
    assert torch.equal(read.activations[mid], clean)
    assert read.activations[mlp_in].abs().max() == 0
    torch.testing.assert_close(read.activations[post], clean + read.activations[out])


def test_modular_addition_gives_the_reference_logits_and_adds(shared_data):
    subject = load_modular_addition(shared_data / "modadd113")
    assert (subject.vocab_size, subject.d_model, subject.context_tokens) == (114, 128, 3)
    assert (subject.n_heads, subject.width("mlp_hidden.0")) == (4, 512)
    reference = load_file(shared_data / "modadd113" / "reference.safetensors")
    logits = subject.run(reference["tokens"]).logits
    torch.testing.assert_close(logits, reference["logits"], atol=1e-4, rtol=1e-4)
    numbers = torch.cartesian_prod(torch.arange(113), torch.arange(113))
    tokens = torch.cat([numbers, torch.full((len(numbers), 1), 113)], dim=1)
    answers = subject.run(tokens).logits[:, -1].argmax(-1)
    errors = int((answers != numbers.sum(-1) % 113).sum())
    assert errors == 4  # README of the data: 4 errors on all 12 769 pairs
