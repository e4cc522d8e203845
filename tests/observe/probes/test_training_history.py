"""Histories of models that learn a known thing at a known step."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.observe.probes.checkpoints import probe_history
from modelassay.observe.probes.training_history import MEASURES, TrainingHistory
from tests.observe.probes.histories import (
    SITE,
    checkpoints,
    concepts,
    history,
    random_contexts,
)


@pytest.fixture(scope="module")
def learning() -> TrainingHistory:
    """The token before is in the stream from step 4 on."""
    return history({8: 1.0, 0: 0.0, 1: 0.0, 4: 1.0})


def test_what_is_learnt_is_found_from_the_step_at_which_it_is(learning: TrainingHistory):
    assert learning.steps == (0, 1, 4, 8)
    before, _, _, size = learning.summaries()
    for each in (before, size):
        assert each.finding == "learnt"
        assert each.since == 4
        assert each.lead.low > 0.3
    assert before.score.value > 0.9
    assert learning.cell("score", 0, 0, 1).low < 0.2  # before step 4: chance


def test_what_random_weights_tell_as_well_is_not_learnt(learning: TrainingHistory):
    odd = learning.summaries()[1]
    assert odd.score.value > 0.95
    assert odd.finding == "not beyond the null twin"
    assert odd.since is None


def test_a_coin_is_not_encoded(learning: TrainingHistory):
    coin = learning.summaries()[2]
    assert coin.finding == "not encoded"
    assert coin.since is None


def test_step_0_never_leads_over_itself(learning: TrainingHistory):
    lead, over_null = learning.bounds("lead"), learning.bounds("over_null")
    assert float(lead[0, :, :, 0].max()) <= 0
    assert torch.equal(over_null[:, :, :, 0], torch.zeros_like(over_null[:, :, :, 0]))


def test_the_lead_is_the_score_less_the_best_control(learning: TrainingHistory):
    score, *others = (learning.bounds(m)[0] for m in MEASURES[1:5])
    smallest = torch.stack([score, *others]).amin(0)  # the score itself: chance is 0
    assert torch.allclose(learning.bounds("lead")[0], smallest)
    selectivity = learning.scores[..., 0] - learning.task[..., 0]
    assert torch.allclose(learning.bounds("selectivity")[0], selectivity)


def test_intervals_hold_their_values(learning: TrainingHistory):
    value, low, high = learning.bounds("score")
    assert bool((low <= high).all())
    assert float(((low <= value) & (value <= high)).float().mean()) > 0.9


def test_without_resamples_there_are_no_intervals_and_no_findings(learning: TrainingHistory):
    parts = {
        name: getattr(learning, name)[..., :1]
        for name in ("scores", "task", "token", "bag", "twin")
    }
    found = replace(learning, **parts)
    assert bool(found.bounds("lead")[1:].isnan().all())
    assert found.summaries()[0].finding == "not encoded"


def test_without_step_0_the_null_is_the_last_model_with_weights_drawn_anew():
    found = history({4: 0.0, 8: 1.0})
    assert found.null == "the last model with weights drawn anew"
    # Random vectors for this token and the last tell the token before just as well.
    assert found.summaries()[0].finding == "not beyond the null twin"
    assert float(found.scores[0, 0, 0, 0]) < 0.2 < float(found.twin[0, 0, 0])


def test_two_checkpoints_of_one_step_are_refused():
    contexts = random_contexts()
    twice = checkpoints({1: 0.0}) * 2
    with pytest.raises(ValueRangeError, match=r"each of another step; got the steps \[1, 1\]"):
        probe_history(twice, contexts, concepts(contexts), [SITE])


def test_a_history_without_concepts_is_refused():
    with pytest.raises(TooFewTokensError, match="needs a concept; got none"):
        probe_history(checkpoints({1: 0.0}), random_contexts(), [], [SITE])
