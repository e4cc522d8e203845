"""Direct and indirect effects, and paths: identities and a known mechanism."""

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.observe.mediation import mediate
from modelassay.observe.patching import patch
from modelassay.observe.patching_columns import everywhere
from modelassay.observe.patching_parts import Head, Latents, Residue, Whole, heads_of
from modelassay.observe.patching_paths import patch_paths, received, sites_between
from modelassay.subjects.hooked_transformer import load_modular_addition
from modelassay.subjects.site import Site
from modelassay.subjects.testing import D_MODEL, tiny_subject
from tests.observe.patching_cases import modular_addition_pairs, random_dictionary, random_pairs


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("gpt2")


def test_a_mediator_that_is_everything_leaves_no_direct_effect(subject):
    found = mediate(subject, random_pairs(), [Whole(Site("resid_post", 0))])
    assert torch.equal(found.indirect, found.total)
    assert bool((found.direct == 0).all())


def test_a_mediator_that_sees_nothing_leaves_all_of_it_direct(subject):
    pairs = random_pairs()
    early = everywhere(pairs)
    early.mask[:, 2:] = False  # the prompts differ from position 2
    found = mediate(subject, pairs, [Whole(Site("resid_post", 0))], column=early)
    assert bool((found.indirect == 0).all())
    assert torch.equal(found.direct, found.total)


def test_the_indirect_effect_is_that_of_noising(subject):
    pairs = random_pairs()
    part = Whole(Site("mlp_out", 0))
    found = mediate(subject, pairs, [part])
    noised = patch(subject, pairs, [part], columns=[everywhere(pairs)], direction="noising")
    torch.testing.assert_close(found.indirect, noised.values[0, 0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.total, noised.source - noised.target)


def test_all_heads_of_a_layer_mediate_as_its_attention(subject):
    pairs = random_pairs()
    heads = [head for head in heads_of(subject) if head.site.layer == 0]
    found = mediate(subject, pairs, heads)
    whole = mediate(subject, pairs, [Whole(Site("head_out", 0))])
    torch.testing.assert_close(found.indirect, whole.indirect, rtol=1e-3, atol=1e-5)


def test_all_latents_and_the_error_mediate_as_their_site(subject):
    pairs, site = random_pairs(), Site("resid_post", 0)
    dictionary = random_dictionary(10, D_MODEL, site)
    parts = [Residue(site, dictionary), *(Latents(site, dictionary, (n,)) for n in range(10))]
    found = mediate(subject, pairs, parts)
    torch.testing.assert_close(found.indirect, found.total, rtol=1e-3, atol=1e-4)


def test_the_mlp_mediates_modular_addition(shared_data):
    subject = load_modular_addition(shared_data / "modadd113")
    found = mediate(subject, modular_addition_pairs(), [Whole(Site("mlp_out", 0))]).means()
    assert found["total"].high < 0
    assert found["mediated"].low > 0.9  # Nanda et al. 2023: the path beside the MLP matters little
    # No norm and one block: what is not mediated is direct, exactly.
    parts = found["indirect"].value + found["direct"].value
    assert parts == pytest.approx(found["total"].value, rel=1e-5)


def test_direct_paths_of_all_senders_sum_to_the_whole_change_of_the_stream(subject):
    pairs = random_pairs()
    column = everywhere(pairs)
    receiver = Site("resid_post", 1)
    branches = [Site(role, layer) for layer in (0, 1) for role in ("attn_out", "mlp_out")]
    senders = [Whole(site) for site in (Site("resid_pre", 0), *branches)]
    total = sum(received(subject, pairs, s, receiver, column=column) for s in senders)
    clean, corrupt = (
        subject.run(tokens, read=[receiver]).activations[receiver]
        for tokens in (pairs.clean, pairs.corrupt)
    )
    torch.testing.assert_close(total, clean - corrupt, rtol=1e-3, atol=1e-4)


def test_without_a_norm_direct_effects_on_the_logits_sum_to_the_total(shared_data):
    subject = load_modular_addition(shared_data / "modadd113")
    pairs = modular_addition_pairs()
    senders = [Whole(Site(role, 0)) for role in ("resid_pre", "attn_out", "mlp_out")]
    shares = patch_paths(subject, pairs, senders, columns=[everywhere(pairs)]).shares()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-4)
    assert shares[1, 0] < 0.1  # the attention acts through the MLP


def test_a_path_to_the_next_input_is_what_patching_it_there_does(subject):
    # Nothing lies between the first attention and what the first MLP reads.
    pairs = random_pairs()
    sender, receiver = Whole(Site("attn_out", 0)), Site("mlp_in", 0)
    assert sites_between(subject, sender.site, receiver) == ()
    effects = patch_paths(subject, pairs, [sender], receiver, columns=[everywhere(pairs)])
    sent = subject.run(pairs.clean, read=[sender.site]).activations[sender.site]
    edit = {sender.site: lambda _: sent}
    seen = subject.run(pairs.corrupt, edit=edit, read=[receiver]).activations[receiver]
    by_hand = subject.run(pairs.corrupt, edit={receiver: lambda _: seen}).logits[:, -1]
    change = (by_hand.gather(1, pairs.answers) - by_hand.gather(1, pairs.wrong))[:, 0]
    torch.testing.assert_close(effects.target + effects.values[0, 0], change)


def test_a_head_is_sent_through_its_own_attention(subject):
    between = sites_between(subject, Head(Site("head_out", 0), 1).site, None)
    assert [str(site) for site in between] == ["mlp_out.0", "attn_out.1", "mlp_out.1"]


def test_paths_that_lead_back_are_refused(subject):
    with pytest.raises(ValueRangeError, match=r"later role, or to the logits; got mlp_out.1 ->"):
        patch_paths(subject, random_pairs(2), [Whole(Site("mlp_out", 1))], Site("attn_in", 0))
