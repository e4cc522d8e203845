"""Cheap probes of many concepts: closed forms, planted scores, and what the controls know."""

from math import sqrt

import pytest
import torch
from scipy.stats import norm

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.ridge import ridge_regressions
from modelassay.observe.probes.sweep import (
    probe_cell,
    read_linearly,
    score,
    score_of_bag,
    score_of_token,
)
from modelassay.observe.probes.sweep_items import TokenConcept, draw_items, too_few
from tests.observe.probes.histories import WORDS, random_contexts

EVERY = torch.ones(1, 6, dtype=torch.float64)


def concept(values: torch.Tensor, *, graded: bool = False) -> TokenConcept:
    return TokenConcept(name="it", description="It.", values=values, graded=graded)


def coin(seed: int = 1) -> torch.Tensor:
    return torch.randint(2, random_contexts().tokens.shape, generator=generator(seed)).float()


def test_ridge_regression_solves_its_normal_equations():
    g = generator(0)
    x = torch.randn(50, 6, generator=g, dtype=torch.float64) + 3
    y = torch.randn(50, generator=g, dtype=torch.float64)
    for l2, head in zip((2.0, 0.01), ridge_regressions(x, y, (2.0, 0.01)), strict=True):
        residual = x @ head.weight[:, 0] + head.bias[0] - y
        gradient = x.T @ residual / 50 + l2 * head.weight[:, 0]
        assert float(gradient.abs().max()) < 1e-10
        assert float(residual.mean()) == pytest.approx(0, abs=1e-10)


def test_ridge_regression_refuses_no_penalty():
    with pytest.raises(ValueRangeError, match=r"l2 must be above 0; got 0.0"):
        ridge_regressions(torch.ones(3, 1), torch.ones(3), (1.0, 0.0))


def test_scores_are_0_for_who_knows_nothing_and_1_for_who_knows_all():
    truth = torch.tensor([0.0, 0, 0, 1, 1, 1], dtype=torch.float64)
    size = torch.arange(6.0, dtype=torch.float64)
    for values, graded in ((truth, False), (size, True)):
        assert float(score(values, values, EVERY, graded=graded)) == 1
        nothing = values.mean().expand(6)
        assert float(score(nothing, values, EVERY, graded=graded)) == pytest.approx(0)
    assert float(score(-truth, truth, EVERY, graded=False)) == -1
    missing = EVERY * torch.tensor([1.0, 1, 1, 0, 0, 0])
    assert bool(score(truth, truth, missing, graded=False).isnan())
    assert bool(score(truth, truth, missing, graded=True).isnan())


def test_weighted_scores_are_those_of_repeated_items():
    g = generator(2)
    values, found = torch.rand(6, generator=g).double(), torch.rand(6, generator=g).double()
    counts = torch.tensor([2, 0, 1, 3, 1, 1])
    repeated = values.repeat_interleave(counts), found.repeat_interleave(counts)
    every = torch.ones(1, int(counts.sum()), dtype=torch.float64)
    expected = score(repeated[1], repeated[0], every, graded=True)
    assert float(score(found, values, counts[None].double(), graded=True)) == pytest.approx(
        float(expected)
    )


def test_a_planted_class_is_read_as_well_as_it_can_be():
    items = draw_items(random_contexts(), concept(coin()), n_items=1000, n_resamples=50)
    noise = torch.randn(len(items), 8, generator=generator(3))
    noise[:, 0] += 1.5 * items.values.float()
    cell = probe_cell(items, noise)
    # Two normals 1.5 apart: AUROC is Phi(1.5 / sqrt 2).
    best = 2 * norm.cdf(1.5 / sqrt(2)) - 1
    assert float(cell.score[0]) == pytest.approx(best, abs=0.08)
    assert cell.validation == pytest.approx(best, abs=0.08)
    assert abs(float(cell.task[0])) < 0.25  # noise remembers no token


def test_a_planted_size_is_read_as_well_as_it_can_be():
    size = torch.randn(random_contexts().tokens.shape, generator=generator(4))
    items = draw_items(random_contexts(), concept(size, graded=True), n_items=1000, n_resamples=50)
    noise = torch.randn(len(items), 8, generator=generator(3))
    noise[:, 0] = items.values.float() + 0.5 * noise[:, 0]
    # Variance 1 of which 1 / (1 + 1 / 4) is explained.
    assert float(probe_cell(items, noise).score[0]) == pytest.approx(0.8, abs=0.05)


def test_the_token_alone_knows_what_tokens_tell_and_nothing_else():
    contexts = random_contexts()
    told = draw_items(contexts, concept((contexts.tokens % 2).float()), n_resamples=2)
    untold = draw_items(contexts, concept(coin()), n_resamples=2)
    assert float(score_of_token(told)[0]) == 1
    assert abs(float(score_of_token(untold)[0])) < 0.2


def test_the_bag_of_tokens_knows_what_was_read_in_any_order():
    contexts = random_contexts()
    seen = ((contexts.tokens == 3).cumsum(1) > 0).float()
    items = draw_items(contexts, concept(seen), n_items=400, n_resamples=2)
    assert float(score_of_bag(items, contexts)[0]) > 0.95
    assert float(score_of_token(items)[0]) < 0.5


def test_a_control_task_gives_a_type_one_value_and_is_remembered_from_the_token():
    items = draw_items(random_contexts(), concept(coin()), n_resamples=2)
    for kind in range(WORDS):
        assert len(items.task_values[items.types == kind].unique()) == 1
    cell = probe_cell(items, torch.eye(WORDS)[items.types])
    assert float(cell.task[0]) > 0.99
    assert abs(float(cell.score[0])) < 0.25


def test_no_document_lies_on_both_sides_and_classes_are_balanced():
    items = draw_items(random_contexts(), concept(coin()), n_items=200)
    train, test = items.groups[items.train], items.groups[items.test]
    assert not set(train.tolist()) & set(test.tolist())
    for fold in range(3):
        here, there = train[items.folds == fold], train[items.folds != fold]
        assert not set(here.tolist()) & set(there.tolist())
    assert float(items.values.mean()) == 0.5


def test_the_penalty_is_chosen_by_held_out_documents():
    g = generator(6)
    x, folds = torch.randn(60, 40, generator=g), torch.arange(60) % 3
    values = (torch.arange(60) % 2).double()  # nothing to find: the strongest penalty is best
    found = read_linearly(x, x, values, folds, graded=False, penalties=(10.0, 1e-3))
    assert found.l2 == 10.0


def test_too_few_tokens_are_refused_with_their_number():
    contexts = random_contexts()
    rare = torch.zeros(contexts.tokens.shape)
    rare[0, :5] = 1
    assert too_few(contexts, concept(rare)) == "5 tokens of a class, of 20 that are needed"
    assert too_few(contexts, concept(rare * 0, graded=True)) == "only one size"
    with pytest.raises(TooFewTokensError, match="got, for 'it', 5 tokens of a class"):
        draw_items(contexts, concept(rare))
    with pytest.raises(ShapeError, match=r"values of 'it' must be \[40, 30\]"):
        draw_items(contexts, concept(rare[:, 1:]))
