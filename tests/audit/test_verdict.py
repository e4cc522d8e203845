import itertools

import pytest
import torch

from modelassay.audit.parts import QUESTIONS, VERDICTS, verdict_shares
from modelassay.audit.verdict import THRESHOLDS, firings_of, judge, verdict_of
from modelassay.evidence.evidence import Evidence

ENOUGH = (1000, 100, 20)
VALUES = {"written": 0.8, "read": 0.4, "learned": 0.2, "stable": 0.9}


def evidence(name, value, low, high, q=None):
    tensor = torch.tensor(value)
    return Evidence(
        name=name,
        title=name,
        scope="latent",
        value=tensor,
        low=torch.tensor(low),
        high=torch.tensor(high),
        null=torch.zeros_like(tensor),
        null_description="",
        q_value=None if q is None else torch.tensor(q),
        n=torch.full((len(value),), 50),
        unit="",
        better="higher",
        definition="",
    )


def test_all_four_answers_are_needed_for_the_model():
    for answers in itertools.product(("yes", "no", "unclear"), repeat=4):
        given = dict(zip(QUESTIONS, answers, strict=True))
        verdict, _ = verdict_of(given, ENOUGH, VALUES)
        assert (verdict == "model") == (set(answers) == {"yes"})


def test_activations_need_positive_evidence():
    for answers in itertools.product(("yes", "no", "unclear"), repeat=4):
        given = dict(zip(QUESTIONS, answers, strict=True))
        verdict, _ = verdict_of(given, ENOUGH, VALUES)
        ignored = given["read"] == "no"
        given_for_free = given["written"] == given["learned"] == "no" and given["read"] != "yes"
        assert (verdict == "activations") == (ignored or given_for_free)
        if "no" not in answers:
            assert verdict in {"model", "undetermined"}


def test_thin_evidence_is_undetermined_and_silence_is_dead():
    yes = dict.fromkeys(QUESTIONS, "yes")
    assert verdict_of(yes, (0, 0, 0), VALUES)[0] == "dead"
    assert verdict_of(yes, (100, 29, 20), VALUES)[0] == "undetermined"
    verdict, reason = verdict_of(yes, (100, 60, 4), VALUES)
    assert verdict == "undetermined"
    assert reason == "Fires on 60 held-out tokens in 4 documents; a claim needs 30 in 5."


def test_every_reason_is_a_sentence():
    for answers in itertools.product(("yes", "no", "unclear"), repeat=4):
        _, reason = verdict_of(dict(zip(QUESTIONS, answers, strict=True)), ENOUGH, VALUES)
        assert reason[0].isupper()
        assert reason.endswith(".")
        assert "nan" not in reason


def test_an_interval_across_a_threshold_is_unclear():
    n = 5
    documents = torch.full((10, n), 10.0)
    judgement = judge(
        written=evidence("written", [0.9] * n, [0.8, 0.8, 0.2, 0.8, 0.8], [1.0] * n),
        read=evidence(
            "read",
            [1.0, -1.0, 1.0, 1.0, float("nan")],
            [0.5, -2.0, 0.5, 0.5, float("nan")],
            [2.0, -0.5, 2.0, 2.0, float("nan")],
            q=[0.01, 0.01, 0.01, 0.2, float("nan")],
        ),
        learned=evidence("learned", [0.1] * n, [0.0] * n, [0.3] * n),
        stable=evidence("stable", [0.9] * n, [0.8] * n, [0.95] * n),
        firings=firings_of(documents, torch.full((n,), 500)),
    )
    assert judgement.verdicts == (
        "model",
        "activations",
        "undetermined",
        "undetermined",
        "undetermined",
    )
    assert judgement.answers["read"] == ("yes", "no", "yes", "unclear", "unclear")
    assert judgement.answers["written"][2] == "unclear"
    assert "its effect is not told apart" in judgement.reasons[3]


def test_firings_count_tokens_and_documents():
    firings = firings_of(torch.tensor([[3.0, 0.0], [2.0, 0.0]]), torch.tensor([7, 0]))
    assert firings.anywhere.tolist() == [12, 0]
    assert firings.heldout.tolist() == [5, 0]
    assert firings.heldout_documents.tolist() == [2, 0]


def test_shares_sum_to_one_and_name_every_class():
    shares = verdict_shares(("model", "dead", "dead", "activations"))
    assert tuple(shares) == VERDICTS
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["dead"] == 0.5


def test_every_threshold_has_a_reason():
    for threshold in THRESHOLDS:
        assert len(threshold.reason) > 40
