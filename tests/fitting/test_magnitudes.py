"""Gated training against the paper's own two encoders, in float64."""

import pytest
import torch
from torch import Tensor

from modelassay.core.randomness import generator
from modelassay.decompositions.recipes import Gated, TopK
from modelassay.fitting.learner import Learner
from modelassay.fitting.magnitudes import MagnitudeBias
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, TOKENS, VARIANCE, STEPS = 6, 20, 30, 4.0, 100
RECIPE = Gated(width=WIDTH, l1_coefficient=0.7)


def learner_of(steps: int) -> Learner:
    learner = Learner(
        name="under test",
        dictionary=RECIPE.build(D, D, torch.zeros(D), generator(1), None),
        training=training_of(RECIPE),
        schedule=Schedule(steps=STEPS),
        learning_rate=1e-2,
        dead_window=10_000,
        data=DataScale(mean=torch.zeros(D), total_variance=VARIANCE),
        workspace=torch.empty(TOKENS * WIDTH),
    )
    for step in range(steps):
        learner.step(rows(step), step)
    return learner


def rows(seed: int) -> Tensor:
    return 2 * torch.randn(TOKENS, D, generator=generator(seed))


def papers_weights(learner: Learner) -> dict[str, Tensor]:
    names = {
        "W_gate": "W_enc",
        "b_gate": "b_enc",
        "r_mag": "activation.log_gain",
        "b_mag": "parametrisation.bias",
        "W_dec": "W_dec",
        "b_dec": "b_dec",
    }
    return {
        ours: learner.parameters[theirs].detach().double().requires_grad_()
        for ours, theirs in names.items()
    }


def papers_loss(w: dict[str, Tensor], x: Tensor, coefficient: float) -> Tensor:
    centred = x - w["b_dec"]
    gate = centred @ w["W_gate"] + w["b_gate"]
    magnitude = centred @ (w["W_gate"] * w["r_mag"].exp()) + w["b_mag"]
    values = (gate > 0).double() * magnitude.relu()
    main = (x - w["b_dec"] - values @ w["W_dec"]).square().sum()
    by_gates = x - w["b_dec"].detach() - gate.relu() @ w["W_dec"].detach()
    penalty = coefficient * gate.relu().sum()
    return (main + penalty + by_gates.square().sum()) / (TOKENS * VARIANCE)


@pytest.mark.parametrize("steps", [0, 10])
def test_loss_and_gradients_equal_the_papers(steps: int):
    learner = learner_of(steps)
    weights = papers_weights(learner)
    x = rows(99)
    warmed_up = learner.schedule.sparsity_factor(steps)
    expected = papers_loss(weights, x.double(), warmed_up * RECIPE.l1_coefficient)
    expected.backward()

    forward = learner.forward(x, steps)
    loss = torch.stack([term(forward) for term in learner.training.objectives]).sum()
    learner._differentiate(loss)  # before the gradients are clipped
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for ours, theirs in zip(
        weights,
        ("W_enc", "b_enc", "activation.log_gain", "parametrisation.bias", "W_dec", "b_dec"),
        strict=True,
    ):
        found, wanted = learner.parameters[theirs].grad, weights[ours].grad
        assert found is not None
        assert wanted is not None
        assert wanted.count_nonzero() > 0
        assert torch.allclose(found.double(), wanted, atol=2e-6, rtol=1e-4), ours


def test_the_dictionary_follows_its_parameters():
    learner = learner_of(10)
    weights = papers_weights(learner)
    expected = weights["b_mag"] - weights["r_mag"].exp() * weights["b_gate"]
    offset = learner.dictionary.get_parameter("activation.offset").double()
    assert torch.allclose(offset, expected, atol=1e-6)
    assert "activation.offset" not in learner.parameters


def test_only_gated_dictionaries_have_magnitudes():
    other = TopK(width=WIDTH, k=2).build(D, D, torch.zeros(D), generator(1), None)
    with pytest.raises(TypeError, match="must belong to a gated dictionary; got topk"):
        MagnitudeBias(other)
