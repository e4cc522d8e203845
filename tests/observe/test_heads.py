"""Kinds of heads: patterns of known kind, and the real models' known heads and absences."""

import pytest
import torch

from modelassay.activations.corpus import read_texts, tokenize
from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.head_patterns import KINDS, shuffled_targets, target_share, targets_of
from modelassay.observe.heads import HeadScores, heads_on_repeated_tokens, heads_on_text
from modelassay.subjects.load import load_subject
from modelassay.subjects.testing import tiny_model, tiny_subject

TOKENS = torch.tensor([[9, 4, 7, 5, 4, 7, 5]])


def test_targets_are_their_definition():
    for kind in KINDS:
        expected = torch.zeros(1, 7, 7, dtype=torch.bool)
        row = TOKENS[0].tolist()
        for t in range(7):
            for s in range(t):
                looks = {
                    "previous_token": s == t - 1,
                    "duplicate_token": row[s] == row[t],
                    "induction": s > 0 and row[s - 1] == row[t],
                }[kind]
                expected[0, t, s] = looks
        assert torch.equal(targets_of(kind, TOKENS), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_head_scores_one_and_one_that_looks_anywhere_its_null(kind):
    tokens = torch.stack([torch.randperm(30, generator=generator(i))[:12] for i in range(8)])
    tokens = torch.cat([tokens, tokens], 1)
    measured = torch.zeros_like(tokens, dtype=torch.bool)
    measured[:, 12:] = True
    targets = targets_of(kind, tokens)
    perfect = targets.float() / targets.sum(-1, keepdim=True).clamp(min=1)
    perfect[..., 0] += 1 - perfect.sum(-1)
    anywhere = torch.ones(24, 24).tril()
    anywhere = (anywhere / anywhere.sum(1, keepdim=True)).expand(8, -1, -1)
    pattern = torch.stack([perfect, anywhere], 1)
    scores = target_share(pattern, targets, measured)
    assert float(scores[0]) == pytest.approx(1)
    nulls = target_share(pattern, shuffled_targets(targets, generator(1)), measured)
    assert float(nulls[0]) < 0.3
    assert float(scores[1]) == pytest.approx(float(nulls[1]), abs=0.01)


def test_shuffled_targets_keep_their_number_and_stay_causal():
    targets = targets_of("duplicate_token", TOKENS)
    shuffled = shuffled_targets(targets, generator(0))
    assert torch.equal(shuffled.sum(-1), targets.sum(-1))
    assert not shuffled.triu(1).any()


def test_a_kind_without_queries_is_not_scored_and_not_reported():
    pattern = torch.full((1, 2, 3, 3), 1 / 3)
    targets = targets_of("induction", torch.tensor([[1, 2, 3]]))
    measured = torch.ones(1, 3, dtype=torch.bool)
    scores = target_share(pattern, targets, measured)
    assert scores.isnan().all()
    table = scores.expand(3, 1, 2)
    none = HeadScores(subject="x", kinds=KINDS, scores=table, nulls=table, copying=None)
    assert none.found() == ()


KNOWN = {
    "stories260k": {(3, 6): 0.77, (1, 3): 0.63, (1, 6): 0.52},
    "shakespeare_gpt2_char": {(0, 0): 0.74},
}
"""Previous-token heads that the models' descriptions name."""


@pytest.mark.parametrize("name", KNOWN)
def test_known_previous_token_heads_are_found_and_no_induction(shared_data, name):
    subject = load_subject(shared_data / name)
    # Without single bytes, as where the numbers were measured.
    allowed = torch.arange(259, 512) if name == "stories260k" else None
    scores = heads_on_repeated_tokens(subject, allowed=allowed)
    found = {(h.layer, h.head): h.score for h in scores.found() if h.kind == "previous_token"}
    for head, known in KNOWN[name].items():
        assert found[head] == pytest.approx(known, abs=0.03)
    assert not [head for head in scores.found() if head.kind == "induction"]
    assert scores.best("induction").score < 0.1
    assert scores.copying is not None
    assert scores.copying < 0.6  # copying by induction is worth several nats


def test_the_character_models_previous_token_heads_are_found_on_stories(shared_data):
    subject = load_subject(shared_data / "babyllama105")
    corpus = read_texts(shared_data / "text_tinystories" / "cs336_sample.txt")
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=128)
    on_text = heads_on_text(subject, contexts, contexts_at_most=8)
    found = {(h.layer, h.head): h.score for h in on_text.found() if h.kind == "previous_token"}
    assert {(1, 4), (2, 4)} <= set(found)
    assert on_text.copying is None
    random = heads_on_repeated_tokens(subject, draws=20)
    assert not [head for head in random.found() if head.kind == "induction"]
    assert random.best("induction").score < 0.1


def test_a_random_model_has_no_heads_of_any_kind():
    assert heads_on_repeated_tokens(tiny_subject("llama"), period=12).found() == ()


def test_draws_are_repeatable():
    subject = tiny_subject("gpt2")
    one, other = (heads_on_repeated_tokens(subject, period=8, draws=4) for _ in range(2))
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.nulls, other.nulls)


def test_bad_input_is_refused():
    subject = tiny_subject("llama")
    with pytest.raises(ValueRangeError, match="a period of at least 2"):
        heads_on_repeated_tokens(subject, allowed=torch.tensor([3]))
    with pytest.raises(ValueRangeError, match="at least 1 draw"):
        heads_on_repeated_tokens(subject, draws=0)
    with pytest.raises(UnsupportedModelError, match="Heads need a language model"):
        heads_on_repeated_tokens(load_subject(tiny_model("llama"), roles=False))
    with pytest.raises(ValueRangeError, match="threshold must be above 0"):
        heads_on_repeated_tokens(subject, draws=1).found(0.0)
