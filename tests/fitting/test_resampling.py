"""What begins anew, where, when, and that it lives afterwards."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import BatchTopK, Gated, JumpReLU, ReLUL1, TopK
from modelassay.fitting.learner import Learner
from modelassay.fitting.resampling import Resampling, check_restartable, restart
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, K, TOKENS, STEPS = 10, 48, 4, 30, 100
DEAD = torch.tensor([0, 3, 7])
LIVING = torch.ones(WIDTH, dtype=torch.bool).index_fill(0, DEAD, False)
NOTHING = torch.zeros(0, dtype=torch.int64)
USUAL = Resampling(interval_share=0.1)
RECIPES = [
    TopK(width=WIDTH, k=K),
    BatchTopK(width=WIDTH, k=K),
    TopK(width=WIDTH, k=K, frozen_decoder=True),
    ReLUL1(width=WIDTH, l1_coefficient=0.5),
    JumpReLU(width=WIDTH, target_l0=float(K), bandwidth=0.95),
    Gated(width=WIDTH, l1_coefficient=0.5),
]


def rows(seed: int = 0) -> Tensor:
    return torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(seed)) + 0.5


def learner_of(
    recipe: Recipe, policy: Resampling | None = USUAL, buried: Tensor = NOTHING
) -> Learner:
    """A learner that resamples every ten steps, some latents of which no gradient finds."""
    mean = torch.full((D,), 0.5)
    dictionary = recipe.build(D, D, mean, torch.Generator().manual_seed(1), None)
    with torch.no_grad():
        dictionary.b_enc[buried] = -100
    return Learner(
        name="under test",
        dictionary=dictionary,
        training=replace(training_of(recipe), resampling=policy),
        schedule=Schedule(steps=STEPS),
        learning_rate=1e-2,
        dead_window=200,
        data=DataScale(mean=mean, total_variance=10.0),
        workspace=torch.empty(7 * WIDTH),
        seed=4,
    )


def restarted_of(learner: Learner, errors: Tensor, seed: int = 2) -> Tensor:
    return restart(
        DEAD,
        living=LIVING,
        dictionary=learner.dictionary,
        parameters=learner.parameters,
        optimizer=learner.optimizer,
        inputs=rows(),
        errors=errors,
        gain=0.2,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_restarted_latents_stand_at_inputs_and_the_others_where_they_stood(recipe: Recipe):
    learner = learner_of(recipe)
    for step in range(3):
        learner.step(rows(step), step)
    dictionary = learner.dictionary
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    errors = torch.zeros(TOKENS)
    errors[[2, 11, 23]] = 1.0  # no other input may be drawn
    assert torch.equal(restarted_of(learner, errors), DEAD)
    units = nn.functional.normalize(rows()[[2, 11, 23]] - dictionary.b_dec.detach(), dim=1)
    columns = dictionary.W_enc.detach().t()
    if recipe.frozen_decoder:
        units = dictionary.W_dec.detach()[DEAD]
    else:
        norm = float(before["W_dec"][LIVING].norm(dim=1).mean())
        found = dictionary.W_dec.detach()[DEAD] / norm
        assert sorted((found @ units.T).argmax(1).tolist()) == [0, 1, 2]
        assert torch.allclose((found @ units.T).amax(1), torch.ones(3), atol=1e-5)
        units = found
    gain = 0.2 * float(before["W_enc"].t()[LIVING].norm(dim=1).mean())
    assert torch.allclose(columns[DEAD], gain * units, atol=1e-5)
    assert dictionary.b_enc[DEAD].count_nonzero() == 0
    if isinstance(recipe, JumpReLU):
        mean = before["activation.threshold"][LIVING].mean()
        assert torch.allclose(learner.parameters["activation.threshold"][DEAD], mean.expand(3))
    after = learner.state()
    for name in ("W_enc", "W_enc.exp_avg", "W_enc.exp_avg_sq"):
        assert torch.equal(after[name][:, LIVING], before[name][:, LIVING]), name
    for name in after.keys() - {"W_enc", "W_enc.exp_avg", "W_enc.exp_avg_sq"}:
        if after[name].shape[:1] == (WIDTH,):
            assert torch.equal(after[name][LIVING], before[name][LIVING]), name
        elif name not in ("resampled_after", "dead"):
            assert torch.equal(after[name], before[name]), name


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_moments_of_restarted_latents_are_zero(recipe: Recipe):
    learner = learner_of(recipe)
    for step in range(3):
        learner.step(rows(step), step)
    restarted_of(learner, torch.ones(TOKENS))
    for name, parameter in learner.parameters.items():
        for moment, value in learner.optimizer.state[parameter].items():
            if moment == "step" or name == "b_dec":
                assert value.count_nonzero() > 0
                continue
            by_latent = value.t() if name == "W_enc" else value
            assert by_latent[DEAD].count_nonzero() == 0, (name, moment)
            # Adam without a memory of the first moment has none to lose.
            assert by_latent[LIVING].count_nonzero() > 0 or "threshold" in name, (name, moment)


def test_inputs_are_drawn_in_proportion_to_their_error():
    learner = learner_of(TopK(width=WIDTH, k=K))
    errors = torch.zeros(TOKENS)
    errors[5], errors[6] = 3.0, 1.0
    wanted = rows()[5] - learner.dictionary.b_dec.detach()
    first = 0
    for seed in range(200):
        restart(
            DEAD[:1],
            living=LIVING,
            dictionary=learner.dictionary,
            parameters=learner.parameters,
            optimizer=learner.optimizer,
            inputs=rows(),
            errors=errors,
            gain=0.2,
            generator=torch.Generator().manual_seed(seed),
        )
        direction = learner.dictionary.W_dec.detach()[DEAD[0]]
        first += float(nn.functional.cosine_similarity(direction, wanted, dim=0)) > 0.999
    assert 130 <= first <= 170  # 150 expected, standard deviation 6


def test_no_more_latents_begin_anew_than_there_are_inputs_with_an_error():
    learner = learner_of(TopK(width=WIDTH, k=K))
    errors = torch.zeros(TOKENS)
    errors[4] = 1.0
    assert restarted_of(learner, errors).tolist() == [0]
    assert restarted_of(learner, torch.zeros(TOKENS)).tolist() == []


def test_resampling_happens_at_each_interval_and_never_while_the_rate_falls():
    policy, schedule = Resampling(interval_share=0.25), Schedule(steps=100)
    due: list[int] = []
    for steps_done in range(5, 101, 5):
        if policy.is_due(steps_done, due[-1] if due else 0, schedule):
            due.append(steps_done)
    assert due == [25, 50, 75]
    assert not policy.is_due(80, 0, schedule)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_buried_latents_live_again_where_the_policy_is_resampling(recipe: Recipe):
    dead_after: list[int] = []
    buried = torch.arange(WIDTH // 4)
    for policy in (None, Resampling(interval_share=0.1, gain=1.0)):
        learner = learner_of(recipe, policy, buried)
        for step in range(80):
            _, forward = learner.step(rows(step % 5), step)
            learner.census()
            learner.resample(forward, step + 1)
        dead_after.append(int(learner.latents.dead()[buried].sum()))
    without, resampled = dead_after
    assert without == len(buried)
    assert resampled < without / 2


def test_learner_restarts_what_was_silent_for_half_an_interval_and_counts_it_as_living():
    learner = learner_of(TopK(width=WIDTH, k=K), buried=DEAD)
    for step in range(10):
        _, forward = learner.step(rows(step), step)
        assert len(learner.resample(forward, step + 1)) == 0 or step == 9
    assert learner.latents.silence[DEAD].tolist() == [0, 0, 0]
    assert not bool((learner.dictionary.b_enc[DEAD] == -100).any())


def test_run_without_the_policy_draws_nothing():
    learner = learner_of(TopK(width=WIDTH, k=K), None, DEAD)
    _, forward = learner.step(rows(), 0)
    assert len(learner.resample(forward, 50)) == 0
    assert bool((learner.dictionary.b_enc[DEAD] < -99).all())
    assert "resampled_after" not in learner.state()


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_stopped_and_resumed_run_resamples_alike(recipe: Recipe):
    def advance(learner: Learner, steps: range) -> None:
        for step in steps:
            _, forward = learner.step(rows(step), step)
            learner.census()
            learner.resample(forward, step + 1)

    one, other = learner_of(recipe, buried=DEAD), learner_of(recipe)
    advance(one, range(17))
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    for learner in (one, other):
        advance(learner, range(17, 45))
    assert int(one.state()["resampled_after"]) == 40
    for name, tensor in one.state().items():
        assert torch.equal(tensor, other.state()[name]), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resampling(interval_share=0.0), "interval_share must be above 0"),
        (lambda: Resampling(gain=-1.0), "gain must be above 0; got -1"),
        (
            lambda: check_restartable({"parametrisation.raw": nn.Parameter(torch.zeros(1))}),
            "made of parametrisation.raw",
        ),
    ],
)
def test_settings_under_which_nothing_would_begin_anew_are_refused(
    make: Callable[[], object], message: str
):
    with pytest.raises(ValueRangeError, match=message):
        make()
