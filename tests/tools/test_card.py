"""The bundled subject's card: figures from the log, and a card that matches its figures."""

import json

import pytest

from tools.bundled.card import card, training_summary
from tools.bundled.train import HERE


def test_training_summary_takes_the_last_rows(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(
        "step,tokens,minutes,learning_rate_factor,fit_loss,heldout_loss\n"
        "50,200,0.40,0.5,5.5,\n100,400,0.80,1.0,4.5,4.75\n150,600,1.20,0.0,3.5,\n"
    )
    assert training_summary(log) == {
        "steps": 150, "trained_tokens": 600, "minutes": 1.2,
        "last_fit_loss": 3.5, "last_monitor_loss": 4.75,
    }  # fmt: skip


@pytest.fixture
def metrics():
    path = HERE / "metrics.json"
    if not path.exists():
        pytest.skip("no card was written yet: python -m tools.bundled.card")
    return json.loads(path.read_text("utf-8"))


def test_the_transformer_clearly_beats_the_ngram(metrics):
    assert metrics["transformer_loss"] < metrics["ngram_loss_within_file"] - 0.3
    assert metrics["ngram_loss_within_file"] < metrics["ngram_loss_within_context"]


def test_the_card_says_what_was_measured(metrics):
    text = (HERE / "README.md").read_text("utf-8")
    assert text == card(metrics)
    assert f"**{metrics['transformer_loss']:.3f}**" in text
