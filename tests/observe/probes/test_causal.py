"""Encoded and used are told apart, on a model in which both are known."""

import pytest
import torch
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.behaviour import Choices, log_odds
from modelassay.observe.probes.causal import CausalTest, causal_test
from modelassay.observe.probes.items import items_from_prompts, read_activations
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import tiny_subject

WIDTH, WORDS, NO, YES = 16, 40, 40, 41
SITE = "stream:out"
USED, UNUSED = torch.eye(WIDTH)[0], torch.eye(WIDTH)[1]


class TwoDirections(nn.Module):
    """Words of class 1 (the odd ones) differ along two axes; the answer reads only the first."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.randn(WORDS + 2, WIDTH, generator=generator(0))
        sign = torch.where(torch.arange(WORDS + 2) % 2 == 1, 1.0, -1.0)
        table[:, :2] = 0.2 * table[:, :2] + sign[:, None]
        self.words = nn.Embedding.from_pretrained(table)
        self.stream = nn.Identity()
        self.answer = nn.Linear(WIDTH, WORDS + 2, bias=False)
        with torch.no_grad():
            self.answer.weight.zero_()
            self.answer.weight[YES] = 2 * USED
            self.answer.weight[NO] = -2 * USED

    def forward(self, tokens: Tensor) -> Tensor:
        return self.answer(self.stream(self.words(tokens)))


def subject_and_items() -> tuple[Subject, list[list[int]], list[int]]:
    g = generator(1)
    prompts = torch.randint(WORDS, (240, 3), generator=g).tolist()
    labels = [prompt[-1] % 2 for prompt in prompts]
    return load_subject(TwoDirections()), prompts, labels


def outcome(direction: Tensor, pair: tuple[list[int], list[int]] = ([NO], [YES])) -> CausalTest:
    subject, prompts, labels = subject_and_items()
    items = items_from_prompts(
        prompts, labels, groups=[str(p[-1]) for p in prompts], classes=("even", "odd")
    )
    (data,) = read_activations(subject, items, [SITE]).values()
    train, test = data.take(torch.arange(160)), data.take(torch.arange(160, 200))
    choices = Choices.of(prompts[160:200], [pair] * 40)
    return causal_test(subject, SITE, direction, train, test, choices)


def test_a_direction_that_the_model_reads_is_used():
    found = outcome(USED)
    assert found.used == "yes"
    push, ablate, erase = found.effects
    # The model is linear along it: pushed by the difference of means, items go the whole way.
    assert push.value.value == pytest.approx(1.0, abs=0.05)
    assert ablate.value.value == pytest.approx(1.0, abs=1e-6)
    assert erase.value.value == pytest.approx(1.0, abs=0.05)
    assert push.p_value == pytest.approx(1 / 21)
    # The answers' log-odds are 4 x_1, and the classes lie 2 apart.
    assert found.separation.value == pytest.approx(8.0, abs=0.5)


def test_a_direction_that_carries_the_label_but_is_not_read_is_not_used():
    found = outcome(UNUSED)
    assert found.used == "no"
    assert [effect.value.value for effect in found.effects[:2]] == pytest.approx([0, 0], abs=1e-6)


def test_half_of_both_is_partly_effective():
    push, ablate, _ = outcome(USED + UNUSED).effects
    assert push.value.value == pytest.approx(1.0, abs=0.05)  # sqrt 2 as long, cos 45° along it
    assert ablate.value.value == pytest.approx(1.0, abs=0.1)  # half of twice the difference


def test_the_wrong_sign_does_not_count_as_use():
    found = outcome(-USED)
    assert found.effects[0].value.value == pytest.approx(1.0, abs=0.05)  # the gap changes sign too
    assert outcome(USED, ([YES], [NO])).used == "no behaviour"


def test_log_odds_are_those_of_the_whole_continuation():
    subject = tiny_subject("gpt2")
    g = generator(2)
    prompts = [torch.randint(60, (n,), generator=g).tolist() for n in (4, 7)]
    pairs = [([3, 4], [5]), ([6], [7, 8, 9])]
    found = log_odds(subject, Choices.of(prompts, pairs), "resid_post.0", [None])

    def score(prompt: list[int], option: list[int]) -> float:
        logits = subject.run(torch.tensor([prompt + option])).logits
        shares = logits[0].double().log_softmax(-1)
        return sum(float(shares[len(prompt) + i - 1, token]) for i, token in enumerate(option))

    for item, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True)):
        expected = score(prompt, pair[1]) - score(prompt, pair[0])
        assert float(found[0, item]) == pytest.approx(expected, abs=1e-4)


def test_a_change_touches_only_the_last_token_of_the_prompt_unless_asked_for_more():
    subject = tiny_subject("llama")
    choices = Choices.of([[5, 6, 7], [8, 9, 10, 11]], [([1], [2])] * 2)
    seen: list[int] = []

    def count(values: Tensor, items: Tensor) -> Tensor:
        seen.append(len(items))
        return values

    unchanged = log_odds(subject, choices, "resid_post.0", [None, count])
    log_odds(subject, choices, "resid_post.0", [count], everywhere=True)
    assert seen == [4, 2 * 3 + 2 * 4]
    assert torch.allclose(unchanged[0], unchanged[1])


def test_without_behaviour_there_is_nothing_to_be_used():
    subject, prompts, labels = subject_and_items()
    items = items_from_prompts(
        prompts, labels, groups=[str(p[-1]) for p in prompts], classes=("even", "odd")
    )
    (data,) = read_activations(subject, items, [SITE]).values()
    choices = Choices.of(prompts, [([0], [1])] * 240)  # the answer never depends on the word
    found = causal_test(subject, SITE, USED, data, data, choices, n_nulls=2)
    assert found.used == "no behaviour"


def test_bad_input_is_refused():
    subject, prompts, labels = subject_and_items()
    items = items_from_prompts(prompts, labels, groups=["a"] * 240, classes=("even", "odd"))
    (data,) = read_activations(subject, items, [SITE]).values()
    choices = Choices.of(prompts, [([NO], [YES])] * 240)
    with pytest.raises(ValueRangeError, match="A direction must not be zero"):
        causal_test(subject, SITE, torch.zeros(WIDTH), data, data, choices)
    with pytest.raises(ShapeError, match="those of the 240 test items; got 2"):
        causal_test(subject, SITE, USED, data, data, choices.take(torch.arange(2)))
    with pytest.raises(ShapeError, match="got 240 prompts and 1 pairs"):
        Choices.of(prompts, [([NO], [YES])])
    with pytest.raises(TooFewTokensError, match="got an empty one"):
        Choices.of([[1]], [([], [2])])
