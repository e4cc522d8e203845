"""FLOPs and bytes by hand, and against a learner that was really built."""

from dataclasses import replace

import pytest
import torch

from modelassay.activations.statistics import Moments
from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
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
from modelassay.fitting.forecast_job import DictionaryShape, Job, ModelShape
from modelassay.fitting.learner import Learner
from modelassay.fitting.learners import CHUNK_TOKENS, learners_of
from modelassay.fitting.plan import Plan
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
]


def job_of(*recipes: Recipe) -> Job:
    return Job(
        model=MODEL,
        blocks_run=3,
        dictionaries=tuple(map(DictionaryShape.of, recipes)),
        tokens=1000,
        batch_tokens=100,
        context_tokens=10,
        dead_share=0.0,
    )


def learners(*recipes: Recipe):
    batch = torch.randn(100, D, generator=torch.Generator().manual_seed(0))
    plan = Plan.of(
        recipes,
        site=Site.parse("resid_post.2"),
        tokens=1000,
        batch_tokens=100,
        learning_rate=1e-3,
        seed=0,
    )
    made = learners_of(plan, Moments.of(batch), 1.0, torch.device("cpu"))
    for learner in made:
        learner.step(batch, 0)
    return made


def buffer_of(learner: Learner) -> torch.Tensor:
    return learner._buffer  # pyright: ignore[reportPrivateUsage]


def device_memory(job: Job, shards: int = 1, rows: int = 100):
    return memory(job, shards=shards, batch_rows=rows, workspace_rows=CHUNK_TOKENS, streamed=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_bytes_are_those_of_a_learner_that_was_built(recipe: Recipe):
    (learner,) = learners(recipe)
    found = device_memory(job_of(recipe))
    trained = list(learner.parameters.values())
    moments = [
        moment
        for state in learner.optimizer.state.values()
        for name, moment in state.items()
        if name != "step"
    ]
    assert found.weights == sum(p.nbytes for p in learner.dictionary.parameters())
    assert found.gradients == sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert found.moments == sum(moment.nbytes for moment in moments)
    assert found.workspace == buffer_of(learner).nbytes
    # One more than latents: the place of what must not count.
    assert found.silence == learner.latents.silence.nbytes + 8


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_checkpoint_is_as_large_as_the_state_but_for_step_counts(recipe: Recipe):
    (learner,) = learners(recipe)
    steps = {name: tensor for name, tensor in learner.state().items() if name.endswith(".step")}
    saved = sum(tensor.nbytes for tensor in learner.state().values())
    assert checkpoint_bytes(job_of(recipe)) == saved - sum(t.nbytes for t in steps.values())


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
