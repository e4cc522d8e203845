"""Steering: what each operation does to latents and directions, where, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import (
    NonFiniteError,
    ProvenanceError,
    ShapeError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.observe.steering import (
    SteeredDirection,
    SteeredLatents,
    Steering,
    generate_steered,
    random_directions,
    together,
)
from modelassay.observe.steering_operations import OPERATIONS, Operation
from modelassay.observe.steering_vectors import mean_difference
from modelassay.observe.steering_where import Where
from modelassay.subjects.site import Site
from modelassay.subjects.testing import CONTEXT_TOKENS, D_MODEL, tiny_subject
from tests.observe.patching_cases import random_dictionary

SITE = Site("resid_post", 0)
TOKENS = torch.tensor([[5, 9, 7, 9, 3], [9, 2, 2, 4, 8]])


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("llama")


@pytest.fixture(scope="module")
def dictionary():
    return random_dictionary(12, D_MODEL, SITE)


def latents(dictionary, operation, *chosen, where=None):
    return Steering(
        site=SITE,
        units=SteeredLatents(dictionary, chosen),
        operation=operation,
        where=where or Where(),
    )


def along(direction, operation, where=None, site=SITE):
    return Steering(
        site=site, units=SteeredDirection(direction), operation=operation, where=where or Where()
    )


def everywhere(activation):
    return torch.ones(activation.shape[:2], dtype=torch.bool)


@given(strength=st.floats(-5, 5), seed=st.integers(0, 50))
def test_operations_give_the_value_that_they_name(strength, seed):
    values = torch.randn(7, generator=torch.Generator().manual_seed(seed))
    after = {
        name: values + Operation(name, 0.0 if name == "ablate" else strength).change(values)
        for name in OPERATIONS
    }
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(after["add"], values + strength, **close)
    torch.testing.assert_close(after["clamp"], torch.full((7,), strength), **close)
    torch.testing.assert_close(after["scale"], strength * values, **close)
    torch.testing.assert_close(after["ablate"], torch.zeros(7), **close)


def test_a_latents_contribution_changes_and_the_error_stays(dictionary):
    x = torch.randn(2, 4, D_MODEL, generator=torch.Generator().manual_seed(1))
    codes = dictionary.encode(x.flatten(0, 1))
    dense = codes.dense()
    clamped = dense.clone()
    clamped[:, [2, 5]] = 3.0
    error = x.flatten(0, 1) - dictionary.decode(codes)
    expected = clamped @ dictionary.directions + dictionary.bias + error
    steered = latents(dictionary, Operation("clamp", 3.0), 2, 5).steered(x, everywhere(x))
    torch.testing.assert_close(steered.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)
    assert float(error.norm()) > 0.1 * float(x.norm())  # there is an error to keep


def test_an_ablated_direction_has_no_component_and_the_rest_stays():
    x = torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(2))
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    unit = direction / direction.norm()
    steered = along(direction, Operation("ablate")).steered(x, everywhere(x))
    torch.testing.assert_close(steered @ unit, torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(steered, x - (x @ unit)[..., None] * unit, rtol=1e-4, atol=1e-5)


def test_adding_moves_by_the_strength_whatever_the_directions_length():
    x = torch.zeros(1, 2, D_MODEL)
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    moved = [along(f * direction, Operation("add", 2.5)).steered(x, everywhere(x)) for f in (1, 9)]
    torch.testing.assert_close(moved[0].norm(dim=-1), torch.full((1, 2), 2.5))
    torch.testing.assert_close(moved[0], moved[1])


@pytest.mark.parametrize("kind", ["latents", "direction"])
def test_ablating_is_clamping_to_0_and_scaling_by_0(subject, dictionary, kind):
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))

    def logits(operation):
        steering = (
            latents(dictionary, operation, 1, 4)
            if kind == "latents"
            else along(direction, operation)
        )
        return subject.run(TOKENS, edit=steering.edits(TOKENS)).logits

    ablated = logits(Operation("ablate"))
    assert torch.equal(ablated, logits(Operation("clamp", 0.0)))
    torch.testing.assert_close(ablated, logits(Operation("scale", 0.0)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ablated, subject.run(TOKENS).logits, atol=1e-3)


def test_an_operation_that_changes_nothing_gives_the_models_own_run(subject, dictionary):
    plain = subject.run(TOKENS).logits
    for operation in (Operation("add", 0.0), Operation("scale", 1.0)):
        steering = latents(dictionary, operation, 1)
        assert steering.edits(TOKENS) == {}
        assert torch.equal(subject.run(TOKENS, edit=steering.edits(TOKENS)).logits, plain)
    assert torch.equal(
        generate_steered(subject, TOKENS, [], max_new_tokens=3),
        subject.generate(TOKENS, max_new_tokens=3),
    )


def test_edits_are_gone_afterwards(subject, dictionary):
    before = subject.run(TOKENS).logits
    steering = latents(dictionary, Operation("add", 50.0), 1)
    generate_steered(subject, TOKENS, [steering], max_new_tokens=2)
    assert torch.equal(subject.run(TOKENS).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.module.modules())


def test_only_the_tokens_asked_for_are_steered(subject):
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    where = Where(tokens=frozenset({9}), start=1)
    steering = along(direction, Operation("add", 4.0), where)
    plain, steered = (
        subject.run(TOKENS, read=[SITE], edit=edit).activations[SITE]
        for edit in (None, steering.edits(TOKENS))
    )
    moved = (plain != steered).any(-1)
    assert moved.tolist() == [[False, True, False, True, False], [False] * 5]
    assert torch.equal(moved, where.mask(TOKENS))


def test_places_combine_positions_ranges_and_tokens():
    assert Where(start=1, stop=3).mask(TOKENS)[0].tolist() == [False, True, True, False, False]
    assert Where(positions=frozenset({0, 4, 90})).mask(TOKENS)[1].tolist() == [
        True,
        *[False] * 3,
        True,
    ]
    both = Where(positions=frozenset({0, 1}), tokens=frozenset({9})).mask(TOKENS)
    assert both.tolist() == [[False, True, False, False, False], [True, *[False] * 4]]


def test_generated_tokens_are_steered_from_their_position_on(subject):
    # After the last block one row of the unembedding wins, if it is added strongly enough.
    last = Site("resid_post", 1)
    logits = subject.logits_of(torch.nn.functional.normalize(subject.unembedding().T, dim=1) * 100)
    token = int(
        (
            logits.diagonal() - logits.masked_fill(torch.eye(len(logits)).bool(), -9e9).amax(1)
        ).argmax()
    )
    direction = subject.unembedding()[:, token]
    late = along(direction, Operation("add", 1e4), Where(start=6), last)
    text = generate_steered(subject, TOKENS, [late], max_new_tokens=5)
    plain = subject.generate(TOKENS, max_new_tokens=5)
    assert torch.equal(text[:, :7], plain[:, :7])  # what follows position 5 is still the model's
    assert bool((text[:, 7:] == token).all())


def test_steerings_of_one_site_act_one_after_the_other(subject):
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    twice = [along(direction, Operation("add", 1.5))] * 2
    once = along(direction, Operation("add", 3.0))
    torch.testing.assert_close(
        subject.run(TOKENS, edit=together(twice, TOKENS)).logits,
        subject.run(TOKENS, edit=once.edits(TOKENS)).logits,
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_random_directions_have_the_lengths_and_nothing_else(dictionary):
    like = 3 * dictionary.directions
    drawn = random_directions(like, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.norm(dim=1), like.norm(dim=1))
    cosine = torch.nn.functional.cosine_similarity(drawn, like, dim=1)
    assert float(cosine.abs().mean()) < 0.4
    again = random_directions(like, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_a_turned_unit_changes_by_the_same_amounts_elsewhere(dictionary):
    x = torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(2))
    steering = latents(dictionary, Operation("clamp", 4.0), 3)
    other = random_directions(steering.units.written, torch.Generator().manual_seed(1))
    turned = Steering(site=SITE, units=steering.units.turned(other), operation=steering.operation)
    own, random = (s.steered(x, everywhere(x)) - x for s in (steering, turned))
    torch.testing.assert_close(own.norm(dim=-1), random.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(own, random, atol=0.1)


def test_the_difference_of_means_is_that_of_what_was_read(subject):
    positive = [torch.tensor([1, 5, 9]), torch.tensor([2, 5, 9, 9])]
    negative = [torch.tensor([1, 5, 8])]
    found = mean_difference(subject, "resid_post.0", positive, negative)
    rows = [
        subject.run(p[None], read=[SITE]).activations[SITE][0, -1] for p in (*positive, *negative)
    ]
    torch.testing.assert_close(found.difference, (rows[0] + rows[1]) / 2 - rows[2])
    assert [prompt.read for prompt in found.read][1] == (False, False, False, True)
    assert found.length == pytest.approx(float(found.difference.norm()))


def test_adding_the_difference_moves_one_mean_to_the_other(subject):
    positive, negative = [torch.tensor([1, 5, 9])], [torch.tensor([1, 5, 8])]
    found = mean_difference(subject, SITE, positive, negative)
    where = Where(positions=frozenset({2}))
    steering = Steering(
        site=SITE, units=found.units, operation=Operation("add", found.length), where=where
    )
    tokens = negative[0][None]
    steered = subject.run(tokens, edit=steering.edits(tokens)).logits
    wanted = subject.run(positive[0][None]).logits
    # The last token alone differs, so that its stream is all that the rest of the model sees of it.
    torch.testing.assert_close(steered[:, -1], wanted[:, -1], rtol=1e-3, atol=1e-4)


def test_what_does_not_belong_together_is_refused(subject, dictionary):
    def refuse(steering):
        generate_steered(subject, TOKENS, [steering], max_new_tokens=1)

    with pytest.raises(ValueRangeError, match="Latents must be from 0 to 11; got 12"):
        refuse(latents(dictionary, Operation("ablate"), 12))
    with pytest.raises(ValueRangeError, match="must be different ones, at least one; got"):
        refuse(latents(dictionary, Operation("ablate"), 3, 3))
    with pytest.raises(UnknownNameError, match=r"got 'resid_post\.7'"):
        refuse(along(torch.ones(D_MODEL), Operation("ablate"), site=Site("resid_post", 7)))
    with pytest.raises(ShapeError, match="must have 32 components; got 31"):
        refuse(along(torch.ones(D_MODEL - 1), Operation("ablate")))
    stranger = random_dictionary(4, D_MODEL, SITE)
    stranger.subject_fingerprint = "0" * 16
    with pytest.raises(ProvenanceError, match="fitted on 0000000000000000"):
        refuse(latents(stranger, Operation("ablate"), 1))
    elsewhere = random_dictionary(4, D_MODEL, Site("mlp_out", 1))
    with pytest.raises(ProvenanceError, match=r"which reads mlp_out\.1"):
        refuse(latents(elsewhere, Operation("ablate"), 1))
    with pytest.raises(ValueRangeError, match=f"must fit into {CONTEXT_TOKENS} tokens"):
        generate_steered(subject, TOKENS, [], max_new_tokens=CONTEXT_TOKENS)


def test_values_that_mean_nothing_are_refused(subject):
    with pytest.raises(UnknownNameError, match=r"Operation must be one of.*got 'clip'"):
        Operation("clip")
    with pytest.raises(ValueRangeError, match="must be finite, and 0 for an ablation"):
        Operation("ablate", 1.0)
    with pytest.raises(ValueRangeError, match="must be finite"):
        Operation("add", float("nan"))
    with pytest.raises(ValueRangeError, match="length above 0; got 0"):
        SteeredDirection(torch.zeros(4))
    with pytest.raises(NonFiniteError, match="got NaN or Inf"):
        SteeredDirection(torch.tensor([1.0, float("inf")]))
    with pytest.raises(ValueRangeError, match=r"start=3, stop=3"):
        Where(start=3, stop=3)
    with pytest.raises(ValueRangeError, match="got 1 and 0"):
        mean_difference(subject, SITE, [torch.tensor([1])], [])
    with pytest.raises(ValueRangeError, match="got position -2 in one of 1 tokens"):
        mean_difference(subject, SITE, [torch.tensor([1])], [torch.tensor([1])], positions=(-2,))
