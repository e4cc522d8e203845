"""FLOPs and bytes by hand, and against a learner that was really built."""

from dataclasses import replace

import pytest
import torch

from modelassay.activations.statistics import Moments
from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    Archetypal,
    BatchTopK,
    GroupMax,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    OrthogonalMatchingPursuit,
    ReLUL1,
    TopK,
)
from modelassay.fitting.forecast_costs import (
    checkpoint_bytes,
    dense_products,
    flops,
    memory,
    model_flops,
    sparse_flops,
    stored_bytes,
)
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_job import Job, ModelShape
from modelassay.fitting.learner import Learner
from modelassay.fitting.learners import CHUNK_TOKENS, learners_of
from modelassay.fitting.options import OptimizerName, TrainingOptions
from modelassay.fitting.plan import Plan
from modelassay.fitting.schedules import Schedule
from modelassay.subjects.site import Site

D = 12
MODEL = ModelShape(
    name="m",
    d_model=D,
    layers=4,
    heads=2,
    block_parameters=4 * 1000,
    parameters=5000,
    attention_width=D,
)
RECIPES = [
    TopK(width=64, k=4),
    TopK(width=64, k=4, frozen_decoder=True),
    BatchTopK(width=64, k=4),
    ReLUL1(width=64),
    JumpReLU(width=64, target_l0=4.0),
    Matryoshka(width=64, k=4),
    AbsTopK(width=64, k=4),
    GroupMax(width=64, k=4),
    TopK(width=64, k=4, free_decoder=True),
    MatchingPursuit(width=64, k=4),
    MatchingPursuit(width=64, k=4, frozen_decoder=True),
    OrthogonalMatchingPursuit(width=64, k=4),
    Archetypal(width=64, k=4, candidates=20),
    Matryoshka.of(Archetypal(width=64, k=4, candidates=20), random_prefixes=3),
]
OPTIMIZERS: list[OptimizerName] = ["adam", "signum", "muon"]


def job_of(*recipes: Recipe, optimizer: OptimizerName = "adam") -> Job:
    return Job(
        model=MODEL,
        blocks_run=3,
        dictionaries=tuple(map(DictionaryShape.of, recipes)),
        tokens=1000,
        batch_tokens=100,
        context_tokens=10,
        dead_share=0.0,
        optimizer=optimizer,
    )


def learners(*recipes: Recipe, optimizer: OptimizerName = "adam"):
    batch = torch.randn(100, D, generator=torch.Generator().manual_seed(0))
    plan = Plan.of(
        recipes,
        site=Site.parse("resid_post.2"),
        tokens=1000,
        batch_tokens=100,
        learning_rate=1e-3,
        seed=0,
        options=TrainingOptions(optimizer=optimizer),
    )
    made = learners_of(
        plan,
        Moments.of(batch),
        1.0,
        torch.device("cpu"),
        draw=lambda n: torch.randn(n, D, generator=torch.Generator().manual_seed(1)),
    )
    for learner in made:
        learner.step(batch, 0)
    return made


def buffer_of(learner: Learner) -> torch.Tensor:
    return learner._buffer  # pyright: ignore[reportPrivateUsage]


def device_memory(job: Job, shards: int = 1, rows: int = 100):
    return memory(job, shards=shards, batch_rows=rows, workspace_rows=CHUNK_TOKENS, streamed=True)


def made_bytes(learner: Learner) -> int:
    """Of what a step makes of the trained parameters, and of its gradients."""
    made = learner.weights._made  # pyright: ignore[reportPrivateUsage]
    gradients = [learner.dictionary.get_parameter(name).grad for name in made]
    storages = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in made.values()}
    return sum(storages.values()) + sum(g.nbytes for g in gradients if g is not None)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_bytes_are_those_of_a_learner_that_was_built(recipe: Recipe, optimizer: OptimizerName):
    (learner,) = learners(recipe, optimizer=optimizer)
    found = device_memory(job_of(recipe, optimizer=optimizer))
    trained = list(learner.parameters.values())
    moments = [
        moment
        for state in learner.optimizer.state.values()
        for name, moment in state.items()
        if name != "step"
    ]
    weights = {id(p): p.nbytes for p in [*learner.dictionary.parameters(), *trained]}
    constants = sum(tensor.nbytes for tensor in learner.weights.constants().values())
    assert found.weights == sum(weights.values()) + constants
    gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert found.gradients == gradients + made_bytes(learner)
    assert found.moments == sum(moment.nbytes for moment in moments)
    assert found.workspace == buffer_of(learner).nbytes
    # One more than latents: the place of what must not count.
    assert found.silence == learner.latents.silence.nbytes + 8


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_checkpoint_is_as_large_as_the_state_but_for_step_counts(
    recipe: Recipe, optimizer: OptimizerName
):
    (learner,) = learners(recipe, optimizer=optimizer)
    steps = {name: tensor for name, tensor in learner.state().items() if name.endswith(".step")}
    saved = sum(tensor.nbytes for tensor in learner.state().values())
    assert checkpoint_bytes(job_of(recipe, optimizer=optimizer)) == saved - sum(
        t.nbytes for t in steps.values()
    )


def test_several_dictionaries_share_one_workspace():
    recipes = (TopK(width=64, k=4), TopK(width=32, k=4))
    made = learners(*recipes)
    found = device_memory(job_of(*recipes))
    assert found.workspace == max(buffer_of(learner).nbytes for learner in made)
    assert found.weights == sum(
        p.nbytes for learner in made for p in learner.dictionary.parameters()
    )


def test_model_flops_by_hand():
    # 3 of 4 blocks: 2 FLOPs for each of 1000 weights, and 2 products of 10 x 12 with 2 FLOPs each.
    assert model_flops(job_of(TopK(width=64, k=4))) == 3 * (2 * 1000 + 4 * 10 * 12)


@pytest.mark.parametrize(("width", "k"), [(64, 4), (256, 7)])
def test_sparse_flops_by_hand(width: int, k: int):
    job = job_of(TopK(width=width, k=k))
    found = flops(job, streamed=True)
    parameters = 2 * D * width + width + D
    assert found.model == 1000 * 3 * 2480
    assert found.encoder == 1000 * 2 * D * width
    assert found.rest == 1000 * 8 * k * D + 10 * 20 * parameters
    assert found.total == found.model + found.encoder + found.rest


def test_a_dense_step_is_five_products_and_a_frozen_decoder_saves_one():
    job = job_of(ReLUL1(width=64))
    updates = 10 * 20 * (2 * D * 64 + 64 + D)
    assert flops(job, streamed=True).rest == 1000 * 4 * 2 * D * 64 + updates
    frozen = DictionaryShape.of(ReLUL1(width=64, frozen_decoder=True))
    assert dense_products(frozen, job) == 4


def test_rounds_of_a_pursuit_by_hand():
    # 100 tokens of 4 rounds are more choices than 64 latents: overlaps are made once a step.
    held = job_of(MatchingPursuit(width=64, k=4))
    assert dense_products(held.dictionaries[0], held) == 1 + 64 / 100
    assert sparse_flops(held.dictionaries[0], held) == 8 * 4 * D + 2 * 16 * D
    # 400 choices among 640 latents: every round multiplies with all of them.
    rounds = job_of(MatchingPursuit(width=640, k=4))
    assert dense_products(rounds.dictionaries[0], rounds) == 1 + 4
    orthogonal = job_of(OrthogonalMatchingPursuit(width=640, k=4))
    # The last round's residual is looked at by nobody.
    assert dense_products(orthogonal.dictionaries[0], orthogonal) == 4
    assert sparse_flops(orthogonal.dictionaries[0], orthogonal) == pytest.approx(
        8 * 4 * D + 2 * 16 * D + 4**4 / 6
    )


def test_muons_products_and_those_of_mixtures_by_hand():
    plain, muon = (job_of(TopK(width=64, k=4), optimizer=name) for name in ("adam", "muon"))
    extra = flops(muon, streamed=True).rest - flops(plain, streamed=True).rest
    assert extra == 10 * 2 * 5 * (4 * D**2 * 64 + 2 * D**3)
    mixed = job_of(Archetypal(width=64, k=4, candidates=20))
    extra = flops(mixed, streamed=True).rest - flops(plain, streamed=True).rest
    assert extra == 10 * (3 * 2 * 64 * 20 * D + 20 * (64 * 20 + 1))


def test_a_falling_k_is_counted_by_its_mean_and_its_most():
    plain = job_of(TopK(width=64, k=4))
    falling = replace(plain, initial_k=24, k_share=0.5)
    (dictionary,) = falling.dictionaries
    assert (falling.active(dictionary), falling.most_active(dictionary)) == (4 + 20 / 4, 24)
    assert sparse_flops(dictionary, falling) == 8 * D * 9
    schedule = Schedule(steps=1000, initial_k=24, k_share=0.5)
    mean = sum(schedule.k(step, 4) for step in range(1000)) / 1000
    assert falling.active(dictionary) == pytest.approx(mean, rel=0.01)
    assert device_memory(falling).batch > device_memory(plain).batch
    with pytest.raises(ValueRangeError, match=r"from 1 to the width, 64, for TopK 64.*; got 65"):
        replace(plain, initial_k=65)
    with pytest.raises(ValueRangeError, match=r"initial_k must be None for .*; got 8"):
        replace(job_of(ReLUL1(width=64)), initial_k=8)


def test_auxk_adds_a_product_with_the_dead_and_half_of_d_rows():
    job = replace(job_of(TopK(width=640, k=4)), dead_share=0.1)
    (dictionary,) = job.dictionaries
    assert dense_products(dictionary, job) == pytest.approx(1.1)
    assert sparse_flops(dictionary, job) == 8 * D * (4 + D / 2)


def test_a_second_pass_runs_the_model_again_only_if_streamed():
    job = replace(job_of(TopK(width=64, k=4)), passes=4)
    assert flops(job, streamed=True).model == 4 * flops(job, streamed=False).model
    assert stored_bytes(job) == 250 * D * 4


def test_shards_divide_all_but_the_decoders_bias():
    job = job_of(JumpReLU(width=64, target_l0=4.0))
    whole, part = device_memory(job), device_memory(job, shards=4)
    assert 4 * (part.weights - 4 * D) == whole.weights - 4 * D
    assert 4 * part.workspace == whole.workspace
    assert part.model == whole.model


def test_what_is_read_off_a_recipe():
    assert DictionaryShape.of(TopK(width=64, k=4)).active == 4
    assert DictionaryShape.of(ReLUL1(width=64)).active is None
    assert DictionaryShape.of(ReLUL1(width=64)).revives is False
    jump = DictionaryShape.of(JumpReLU(width=64, target_l0=5.0))
    assert (jump.active, jump.sparsifier_parameters) == (5, 64)
    nested = DictionaryShape.of(Matryoshka(width=64, k=4, prefixes=(8, 64)))
    assert (nested.prefixes, nested.compares_tokens) == (1, True)


def test_faults_are_named():
    job = job_of(TopK(width=64, k=4))
    with pytest.raises(ValueRangeError, match="at least one batch of 100; got 99"):
        replace(job, tokens=99)
    with pytest.raises(ValueRangeError, match="model's 4 layers; got one after 5 blocks"):
        replace(job, blocks_run=5)
    with pytest.raises(ValueRangeError, match=r"below 1; got 1\.5"):
        replace(job, dead_share=1.5)
    with pytest.raises(ValueRangeError, match="passes must be at least 1; got 0"):
        replace(job, passes=0)
    with pytest.raises(ValueRangeError, match=r"at most the width, 8; got 9\.0"):
        DictionaryShape(name="x", width=8, active=9.0)
