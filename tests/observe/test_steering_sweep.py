"""Sweeps: the curve, its cost and its null, where it is known what must come out."""

import pytest
import torch

from modelassay.activations.corpus import TokenizedCorpus, corpus_from_texts
from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.observe.steering import SteeredDirection, Steering
from modelassay.observe.steering_behaviour import (
    ContinuationScore,
    ProbeScore,
    TokenProbability,
)
from modelassay.observe.steering_operations import Operation
from modelassay.observe.steering_sweep import sweep
from modelassay.observe.steering_where import Where
from modelassay.subjects.site import Site
from modelassay.subjects.testing import D_MODEL, VOCAB_SIZE, tiny_subject

LAST = Site("resid_post", 1)
PROMPTS = [torch.tensor(p) for p in ([3, 7, 4], [5, 5], [9, 2, 8, 4], [1, 2], [6, 6, 6], [8, 1])]


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("llama")


@pytest.fixture(scope="module")
def text():
    """Twelve documents of one context each, the last of them padded."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, VOCAB_SIZE, (12, 10), generator=generator)
    mask = torch.ones(12, 10, dtype=torch.bool)
    mask[-1, 6:] = False
    return TokenizedCorpus(
        corpus=corpus_from_texts(["x"] * 12, source="drawn"),
        tokens=tokens.where(mask, 0),
        mask=mask,
        measured=mask,
        document=torch.arange(12),
        spans=torch.zeros(12, 10, 2, dtype=torch.long),
    )


def towards(subject, token, **more):
    direction = subject.unembedding()[:, token]
    return Steering(
        site=LAST, units=SteeredDirection(direction), operation=Operation("add"), **more
    )


def loss_by_hand(subject, text, edit=None):
    logits = subject.run(text.tokens, edit=edit).logits.log_softmax(-1)
    chosen = logits[:, :-1].gather(2, text.tokens[:, 1:, None])[..., 0]
    return -(chosen * text.mask[:, 1:]).sum(1)


def test_a_tokens_own_direction_raises_it_beyond_chance_and_costs_perplexity(subject, text):
    found = sweep(
        subject, towards(subject, 11), (0.0, 4.0, 16.0),
        TokenProbability(tokens=frozenset({11})), PROMPTS, text, n_random=4,
    )  # fmt: skip
    means = [found.behaviour_at(number).value for number in range(3)]
    assert means[0] < means[1] < means[2]
    assert found.beyond_chance() == (False, True, True)
    assert found.cost_at(2).low > 1
    shown = found.prompts[0]
    assert (shown.steered, shown.read) == ((True,) * 3, (False, False, True))


def test_strength_0_is_the_model_itself(subject, text):
    found = sweep(
        subject, towards(subject, 11), (0.0,), TokenProbability(tokens=frozenset({11})),
        PROMPTS, text, n_random=2,
    )  # fmt: skip
    assert torch.equal(found.steered[0], found.unsteered)
    assert torch.equal(found.random[0, 0], found.unsteered)
    assert torch.equal(found.text_steered[0], found.text_unsteered)
    assert (found.cost_at(0).value, found.cost_at(0).low, found.cost_at(0).high) == (1, 1, 1)


def test_losses_are_those_of_each_document_without_its_first_token_and_padding(subject, text):
    steering = towards(subject, 11)
    found = sweep(
        subject, steering, (3.0,), TokenProbability(tokens=frozenset({11})), PROMPTS, text,
        n_random=1, batch_contexts=5,
    )  # fmt: skip
    assert found.text_tokens.tolist() == [9] * 11 + [5]
    torch.testing.assert_close(
        found.text_unsteered, loss_by_hand(subject, text), rtol=1e-4, atol=1e-4
    )
    by_hand = loss_by_hand(subject, text, steering.at(3.0).edits(text.tokens))
    torch.testing.assert_close(found.text_steered[0], by_hand, rtol=1e-4, atol=1e-4)
    perplexity = found.perplexity_at(0)
    assert perplexity.value == pytest.approx(float((by_hand.sum() / 104).exp()), rel=1e-4)
    assert perplexity.low < perplexity.value < perplexity.high


def test_the_null_is_a_change_of_the_same_size(subject, text):
    # The norm after the stream divides by its size, so that at an equal change any direction moves
    # the loss; a token's own direction moves its probability more than each of the random ones.
    found = sweep(
        subject, towards(subject, 20), (12.0,), TokenProbability(tokens=frozenset({20})),
        PROMPTS, text, n_random=6,
    )  # fmt: skip
    assert bool((found.random_perplexity() != found.perplexity_at(None).value).all())
    assert float(found.random_behaviour().max()) < found.behaviour_at(0).value


def test_a_probe_reads_what_was_added(subject, text):
    weight = torch.nn.functional.normalize(torch.arange(1.0, D_MODEL + 1), dim=0)
    steering = Steering(site=LAST, units=SteeredDirection(weight), operation=Operation("add"))
    probe = ProbeScore(site=LAST, weight=weight, bias=0.5, title="sum")
    found = sweep(subject, steering, (2.0,), probe, PROMPTS, text, n_random=1)
    torch.testing.assert_close(found.steered[0], found.unsteered + 2.0, rtol=1e-4, atol=1e-4)
    assert found.behaviour == "sum"


def test_a_classifier_reads_what_the_model_writes(subject, text):
    def elevens(texts):
        return [piece.count("11") for piece in texts]

    behaviour = ContinuationScore(classifier=elevens, max_new_tokens=2, title="elevens")
    found = sweep(subject, towards(subject, 11), (1e4,), behaviour, PROMPTS, text, n_random=1)
    assert float(found.steered.mean()) > float(found.unsteered.mean())
    assert found.prompts[0].read == (False, False, False)
    short = ContinuationScore(classifier=lambda texts: [0.0], max_new_tokens=1, title="x")
    with pytest.raises(ShapeError, match="one number for each of"):
        sweep(subject, towards(subject, 11), (1.0,), short, PROMPTS, text, n_random=1)


def test_a_position_that_no_prompt_has_changes_nothing(subject, text):
    nowhere = towards(subject, 11, where=Where(start=20))
    found = sweep(
        subject, nowhere, (50.0,), TokenProbability(tokens=frozenset({11})), PROMPTS, text,
        n_random=1,
    )  # fmt: skip
    assert torch.equal(found.steered[0], found.unsteered)
    assert torch.equal(found.text_steered[0], found.text_unsteered)


def test_the_same_seed_gives_the_same_sweep(subject, text):
    one, two = (
        sweep(
            subject, towards(subject, 3), (4.0,), TokenProbability(tokens=frozenset({3})),
            PROMPTS, text, n_random=2, seed=5,
        )
        for _ in range(2)
    )  # fmt: skip
    assert torch.equal(one.random, two.random)
    assert one.behaviour_at(0) == two.behaviour_at(0)


def test_sweeps_without_anything_to_sweep_are_refused(subject, text):
    behaviour = TokenProbability(tokens=frozenset({1}))
    with pytest.raises(ValueRangeError, match="at least one strength, prompt and random direction"):
        sweep(subject, towards(subject, 1), (), behaviour, PROMPTS, text)
    with pytest.raises(ValueRangeError, match="at least one id"):
        TokenProbability(tokens=frozenset())
    too_far = TokenProbability(tokens=frozenset({VOCAB_SIZE}))
    with pytest.raises(ValueRangeError, match=f"from 0 to {VOCAB_SIZE - 1}; got {VOCAB_SIZE}"):
        sweep(subject, towards(subject, 1), (1.0,), too_far, PROMPTS, text)
    probe = ProbeScore(site=LAST, weight=torch.ones(3))
    with pytest.raises(ShapeError, match="must have 32 weights; got 3"):
        sweep(subject, towards(subject, 1), (1.0,), probe, PROMPTS, text)
