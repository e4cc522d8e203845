"""One set of directions for encoder and decoder, and what is trained by it."""

import pytest
import torch
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.recipes import MatchingPursuit
from modelassay.fitting.dead_latent_policies import with_dead_latent_policy
from modelassay.fitting.learner import Learner
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.precision import encode_in_bfloat16
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.tied import Tied
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, K, TOKENS, VARIANCE = 7, 24, 3, 40, 5.0
RECIPE = MatchingPursuit(width=WIDTH, k=K)


def rows(seed: int) -> Tensor:
    return torch.randn(TOKENS, D, generator=generator(seed))


def learner_of() -> Learner:
    """A learner that has moved from its start."""
    learner = Learner(
        name="under test",
        dictionary=RECIPE.build(D, D, torch.zeros(D), generator(1), None),
        training=training_of(RECIPE),
        schedule=Schedule(steps=100),
        learning_rate=3e-2,
        dead_window=10_000,
        data=DataScale(mean=torch.zeros(D), total_variance=VARIANCE),
        workspace=torch.empty(9 * WIDTH),
    )
    for step in range(10):
        learner.step(rows(step), step)
    return learner


def by_residuals(directions: Tensor, b_dec: Tensor, x: Tensor) -> Tensor:
    """The loss by its definition, through the graph of all rounds, of directions of any length."""
    unit = directions / directions.norm(dim=1, keepdim=True)
    residual = x - b_dec
    for _ in range(K):
        amount, latent = (residual @ unit.t()).max(1)
        residual = residual - amount.relu().unsqueeze(1) * unit[latent]
    return residual.square().sum() / (TOKENS * VARIANCE)


def test_loss_and_gradient_of_the_directions_equal_the_graph_of_all_rounds():
    learner = learner_of()
    made = Tied(learner.dictionary)
    directions = made.directions.detach().double().requires_grad_()
    b_dec = learner.dictionary.b_dec.detach().double().requires_grad_()
    x = rows(50)
    expected = by_residuals(directions, b_dec, x.double())
    expected.backward()

    loss = learner.training.objectives[0](learner.forward(x, 10))
    learner.dictionary.zero_grad()
    loss.backward()
    weights = made()
    torch.autograd.backward(
        list(weights.values()), [learner.dictionary.get_parameter(name).grad for name in weights]
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert made.directions.grad is not None
    assert directions.grad is not None
    assert directions.grad.count_nonzero() > 0
    assert torch.allclose(made.directions.grad.double(), directions.grad, atol=1e-6, rtol=1e-4)
    assert learner.dictionary.b_dec.grad is not None
    assert b_dec.grad is not None
    assert torch.allclose(learner.dictionary.b_dec.grad.double(), b_dec.grad, atol=1e-6)


def test_encoder_and_decoder_stay_the_same_unit_directions():
    dictionary = learner_of().dictionary
    assert torch.equal(dictionary.W_enc, dictionary.W_dec.t())
    assert torch.allclose(dictionary.directions.norm(dim=1), torch.ones(WIDTH), atol=1e-6)
    assert dictionary.b_enc.count_nonzero() == 0
    start = RECIPE.build(D, D, torch.zeros(D), generator(1), None)
    assert not torch.allclose(dictionary.W_dec, start.W_dec, atol=1e-2)


def test_projecting_keeps_directions_and_gives_them_unit_length():
    made = Tied(learner_of().dictionary)
    before = made()["W_dec"]
    made.directions.data.mul_(3.0)
    made.project()
    assert torch.allclose(made.directions, before, atol=1e-6)


def test_a_pursuit_is_made_in_float32_whatever_the_precision_of_the_encoder():
    # Values are not pre-activations: they may not be computed anew from the choice.
    dictionary = learner_of().dictionary
    batch = EncoderBatch(
        x=rows(60),
        W_enc=dictionary.W_enc,
        b_enc=dictionary.b_enc,
        centre=dictionary.b_dec,
        W_dec=dictionary.W_dec,
    )
    exact = dictionary.activation.encode(batch).decode(dictionary.W_dec)
    coarse = encode_in_bfloat16(dictionary.activation, batch).decode(dictionary.W_dec)
    assert torch.equal(exact, coarse)


def test_a_falling_k_falls_and_resampling_is_refused():
    options = TrainingOptions(initial_k=6, k_share=0.5)
    learner = learner_of()
    learner.schedule = Schedule.of(100, options)
    assert learner.encode(rows(1), 0).values.shape == (TOKENS, 6)
    assert learner.encode(rows(1), 99).values.shape == (TOKENS, K)
    resampling = TrainingOptions(dead_latents="resample")
    with pytest.raises(ValueRangeError, match="an encoder that is itself trained"):
        Learner(
            name="under test",
            dictionary=learner.dictionary,
            training=with_dead_latent_policy(training_of(RECIPE), resampling),
            schedule=Schedule(steps=100),
            learning_rate=1e-3,
            dead_window=100,
            data=DataScale(mean=torch.zeros(D), total_variance=VARIANCE),
            workspace=torch.empty(9 * WIDTH),
        )
