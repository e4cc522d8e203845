"""Patching between prompts: identities, known mechanisms of real models, and what is refused."""

import itertools

import pytest
import torch

from modelassay.core.errors import ProvenanceError, ShapeError, UnknownNameError, ValueRangeError
from modelassay.observe.patching import patch
from modelassay.observe.patching_columns import Column, everywhere, positions_of
from modelassay.observe.patching_pairs import PromptPairs, probability_difference
from modelassay.observe.patching_parts import Head, Latents, Residue, Whole, heads_of, sites_of
from modelassay.subjects.hooked_transformer import load_modular_addition
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.testing import D_MODEL, N_HEADS, tiny_subject
from tests.observe.patching_cases import modular_addition_pairs, random_dictionary, random_pairs


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("llama")


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("role", ["resid_pre", "resid_post"])
def test_carrying_a_stream_over_everywhere_gives_the_other_run_exactly(subject, direction, role):
    pairs = random_pairs()
    effects = patch(
        subject, pairs, [Whole(Site(role, 1))], columns=[everywhere(pairs)], direction=direction
    )
    assert torch.equal(effects.values[0, 0], effects.source - effects.target)
    assert effects.shares()[0, 0] == 1


def test_positions_before_the_first_difference_have_no_effect_and_later_ones_do(subject):
    effects = patch(subject, random_pairs(), sites_of(subject, "resid_pre"))
    assert effects.columns[2] == "2 *"
    assert bool((effects.values[:, :2] == 0).all())
    # Before the first block, only the token that differs carries anything.
    assert bool((effects.values[0, 3:] == 0).all())
    assert torch.equal(effects.values[0, 2], effects.source - effects.target)
    assert bool((effects.values[1, 3:] != 0).any())


def test_an_unused_position_has_no_effect(subject):
    # After the last block only the last position is read.
    effects = patch(subject, random_pairs(), [Whole(Site("resid_post", 1))])
    assert bool((effects.values[0, :-1] == 0).all())
    assert torch.equal(effects.values[0, -1], effects.source - effects.target)


def test_all_heads_together_are_the_attention(subject):
    pairs = random_pairs()
    site = Site("head_out", 0)
    columns = [everywhere(pairs)]
    run = subject.run(pairs.corrupt, read=[site]).activations[site]
    source = subject.run(pairs.clean, read=[site]).activations[site]
    for head in range(N_HEADS):
        run = Head(site, head).replaced(run, source)
    assert torch.equal(run, source)
    whole = patch(subject, pairs, [Whole(site), Whole(Site("attn_out", 0))], columns=columns)
    torch.testing.assert_close(whole.values[0], whole.values[1])
    assert len(heads_of(subject)) == 2 * N_HEADS


def test_one_heads_pattern_is_one_slice_of_the_attention(subject):
    site = Site("attn_pattern", 0)
    target, source = torch.rand(2, N_HEADS, 5, 5), torch.rand(2, N_HEADS, 5, 5)
    changed = Head(site, 2).replaced(target, source)
    assert torch.equal(changed[:, 2], source[:, 2])
    assert torch.equal(changed[:, [0, 1, 3]], target[:, [0, 1, 3]])


@pytest.mark.parametrize("role", ["resid_post", "head_out"])
def test_all_latents_and_the_error_together_are_the_site(subject, role):
    site = Site(role, 0)
    dictionary = random_dictionary(
        24, subject.width(site) * (N_HEADS if role == "head_out" else 1), site
    )
    pairs = random_pairs()
    target, source = (
        subject.run(tokens, read=[site]).activations[site]
        for tokens in (pairs.corrupt, pairs.clean)
    )
    latents = Latents(site, dictionary, tuple(range(24))).replaced(target, source)
    error = Residue(site, dictionary).replaced(target, source)
    assert not torch.allclose(latents, source)
    torch.testing.assert_close(
        latents - target + error - target, source - target, rtol=1e-4, atol=1e-5
    )


def test_a_latent_that_is_silent_in_both_runs_changes_nothing(subject):
    site = Site("resid_post", 0)
    dictionary = random_dictionary(8, D_MODEL, site)
    dictionary.b_enc.data[3] = -1e6
    part = Latents(site, dictionary, (3,))
    effects = patch(subject, random_pairs(), [part])
    assert bool((effects.values == 0).all())


def test_the_effect_of_a_cell_is_that_of_an_edited_run(subject):
    pairs = random_pairs()
    site = Site("mlp_out", 0)
    effects = patch(subject, pairs, [Whole(site)], measure=probability_difference)
    source = subject.run(pairs.clean, read=[site]).activations[site]

    def edit(value):
        value[:, 2] = source[:, 2]
        return value

    logits = subject.run(pairs.corrupt, edit={site: edit}).logits[:, -1].softmax(-1)
    by_hand = (logits.gather(1, pairs.answers) - logits.gather(1, pairs.wrong))[:, 0]
    torch.testing.assert_close(effects.target + effects.values[0, 2], by_hand)


def test_pairs_of_unequal_lengths_are_aligned_at_their_ends(subject):
    pairs = random_pairs(4, 7)
    shorter = PromptPairs(
        clean=pairs.clean.clone().index_fill(1, torch.tensor([6]), 0),
        corrupt=pairs.corrupt.clone().index_fill(1, torch.tensor([6]), 0),
        lengths=torch.full((4,), 6),
        answers=pairs.answers,
        wrong=pairs.wrong,
    )
    both = PromptPairs(
        clean=torch.cat([pairs.clean, shorter.clean]),
        corrupt=torch.cat([pairs.corrupt, shorter.corrupt]),
        lengths=torch.cat([pairs.lengths, shorter.lengths]),
        answers=torch.cat([pairs.answers, shorter.answers]),
        wrong=torch.cat([pairs.wrong, shorter.wrong]),
    )
    names = [column.name for column in positions_of(both, subject)]
    assert names == ["earlier", "-6", "-5", "-4", "-3", "-2", "-1"]
    part = [Whole(Site("resid_post", 0))]
    together, alone = patch(subject, both, part), patch(subject, shorter, part)
    # The columns from the end are the shorter pairs' own positions, whatever stands beside them.
    torch.testing.assert_close(
        together.values[:, 1:, 4:], alone.values[:, 1:], rtol=1e-3, atol=1e-5
    )


def test_chunks_of_pairs_change_nothing(subject):
    pairs = random_pairs(7)
    parts = sites_of(subject, "resid_post")
    whole, cut = (patch(subject, pairs, parts, batch_pairs=size) for size in (64, 3))
    torch.testing.assert_close(whole.values, cut.values, rtol=1e-4, atol=1e-5)


def test_no_hook_outlives_a_call(subject):
    patch(subject, random_pairs(2), heads_of(subject))
    modules = list(subject.module.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


def test_intervals_hold_their_share_and_need_five_groups(subject):
    effects = patch(subject, random_pairs(12), sites_of(subject, "resid_post"))
    low, high = effects.intervals()[0, 4]
    assert low <= effects.shares()[0, 4] <= high
    share = effects.share(0, 4)
    assert (share.low, share.high) == (pytest.approx(float(low)), pytest.approx(float(high)))
    few = patch(subject, random_pairs(4), sites_of(subject, "resid_post"))
    assert bool(few.intervals().isnan().all())


def test_pairs_of_the_same_prompts_are_one_group():
    pairs = random_pairs(3)
    turned = PromptPairs(
        clean=torch.cat([pairs.clean, pairs.corrupt]),
        corrupt=torch.cat([pairs.corrupt, pairs.clean]),
        lengths=torch.cat([pairs.lengths] * 2),
        answers=torch.cat([pairs.answers, pairs.wrong]),
        wrong=torch.cat([pairs.wrong, pairs.answers]),
    )
    assert turned.groups.tolist() == [0, 1, 2, 0, 1, 2]


def test_modular_addition_moves_the_summand_to_the_last_position_and_through_the_mlp(shared_data):
    subject = load_modular_addition(shared_data / "modadd113")
    parts = [Whole(Site(role, 0)) for role in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    shares = patch(subject, modular_addition_pairs(), parts).shares()
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 0, 1.0], [0, 0, 1.0]])
    # By construction of one block: the summand enters at 0 and is read at 2. That the MLP carries
    # it, and not the stream beside it, was found by Nanda et al. 2023 (section 4).
    exact = torch.tensor([True, True, False, True])
    torch.testing.assert_close(shares[exact], expected[exact])
    assert 0.9 < shares[2, 2] < 1.1
    assert bool((shares[2, :2] == 0).all())


def test_the_sorting_model_reads_its_first_answer_from_the_digit_that_changes_it(shared_data):
    subject = load_subject(shared_data / "sort_gpt2_nano")
    # The only 0 stands at position 2; with a 1 in its place the smallest digit is 1.
    rest = torch.tensor(list(itertools.product((1, 2), repeat=5)))[:31]
    clean = torch.cat([rest[:, :2], torch.zeros(31, 1, dtype=torch.long), rest[:, 2:]], 1)
    corrupt = clean.clone()
    corrupt[:, 2] = 1
    pairs = PromptPairs(
        clean=clean,
        corrupt=corrupt,
        lengths=torch.full((31,), 6),
        answers=torch.zeros(31, 1, dtype=torch.long),
        wrong=torch.ones(31, 1, dtype=torch.long),
    )
    effects = patch(subject, pairs, sites_of(subject, "resid_pre"))
    assert bool((effects.source > 0).all())
    assert bool((effects.target < 0).all())
    assert effects.shares()[0].tolist() == [0, 0, 1, 0, 0, 0]
    # By the last block the answer has been moved to where it is given.
    assert effects.shares()[2, 5] > 0.5


def test_runs_that_do_not_differ_have_no_shares(subject):
    pairs = random_pairs(3)
    same = PromptPairs(
        clean=pairs.clean, corrupt=pairs.clean, lengths=pairs.lengths,
        answers=pairs.answers, wrong=pairs.wrong,
    )  # fmt: skip
    effects = patch(subject, same, [Whole(Site("resid_post", 0))])
    assert bool((effects.values == 0).all())
    with pytest.raises(
        ValueRangeError, match="must differ in the measure; got a mean difference of 0"
    ):
        effects.shares()


def test_what_a_model_does_not_have_is_refused(subject):
    pairs = random_pairs(2)
    site = Site("resid_post", 0)
    dictionary = random_dictionary(8, D_MODEL, site)
    with pytest.raises(UnknownNameError, match=r"Site must be one of.*got 'resid_post.9'"):
        patch(subject, pairs, [Whole(Site("resid_post", 9))])
    with pytest.raises(UnknownNameError, match="Role must be one of"):
        sites_of(subject, "resid_pots")
    with pytest.raises(ValueRangeError, match="A head must be from 0 to 3; got 4"):
        patch(subject, pairs, [Head(Site("head_out", 0), 4)])
    with pytest.raises(ValueRangeError, match="must be one of head_out or attn_pattern"):
        patch(subject, pairs, [Head(site, 0)])
    with pytest.raises(ValueRangeError, match="Latents must be from 0 to 7; got 8"):
        patch(subject, pairs, [Latents(site, dictionary, (8,))])
    with pytest.raises(ProvenanceError, match=r"must read the site .* resid_post.1; got"):
        patch(subject, pairs, [Latents(Site("resid_post", 1), dictionary, (1,))])
    with pytest.raises(ShapeError, match="must read and write 32 components; got 16 and 16"):
        patch(subject, pairs, [Residue(site, random_dictionary(8, 16, site))])
    with pytest.raises(ValueRangeError, match="at least one part"):
        patch(subject, pairs, [])
    wrong = Column(name="x", mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"mask must be \[2, 7\]"):
        patch(subject, pairs, [Whole(site)], columns=[wrong])


def test_a_dictionary_of_another_model_is_refused(subject):
    site = Site("resid_post", 0)
    dictionary = random_dictionary(8, D_MODEL, site)
    dictionary.subject_fingerprint = tiny_subject("llama", seed=1).fingerprint()
    with pytest.raises(ProvenanceError, match="must have been fitted on this model"):
        patch(subject, random_pairs(2), [Residue(site, dictionary)])
    dictionary.subject_fingerprint = subject.fingerprint()
    patch(subject, random_pairs(2), [Residue(site, dictionary)])
