"""What cannot be divided is refused; what can is compared in `test_many_processes`."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import GroupMax, JumpReLU, TopK
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import BatchTopKActivation, JumpReLUActivation
from modelassay.fitting.distributed.learner import SharedLearner
from modelassay.fitting.distributed.sparsifiers import encode, part_of
from modelassay.fitting.objectives.pre_activation import PreActivation
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.resampling import Resampling
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import Training, training_of
from modelassay.fitting.weights import DataScale
from tests.fitting.distributed.one_part import OnePart

D = 6


def learner(recipe: Recipe, training: Training | None = None, **options: Any) -> SharedLearner:
    generator = torch.Generator().manual_seed(0)
    fixed: dict[str, Any] = {"schedule": Schedule(steps=10)}
    return SharedLearner(
        name="under test",
        dictionary=recipe.build(D, D, torch.zeros(D), generator, None),
        training=training or training_of(recipe),
        mesh=OnePart((1, 2)),
        learning_rate=1e-3,
        dead_window=10,
        data=DataScale(mean=torch.zeros(D), total_variance=1.0),
        workspace=torch.empty(400),
        **(fixed | options),
    )


def test_a_process_holds_its_latents_alone():
    recipe = JumpReLU(width=41)
    dictionary = recipe.build(D, D, torch.zeros(D), torch.Generator().manual_seed(0), None)
    part = learner(recipe).dictionary
    assert torch.equal(part.W_enc, dictionary.W_enc[:, 21:])
    assert torch.equal(part.W_dec, dictionary.W_dec[21:])
    assert torch.equal(part.b_dec, dictionary.b_dec)
    assert isinstance(part.activation, JumpReLUActivation)
    assert part.activation.threshold.shape == (20,)
    assert part.W_enc.t().is_contiguous()


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        (TopK(width=40), {"resampling": Resampling()}, "leave resampling as it is by default"),
        (TopK(width=40), {"parametrisation": lambda dictionary: None}, "leave parametrisation"),
        (
            TopK(width=40),
            {"objectives": (PreActivation(coefficient=1e-3),)},
            "registered for many processes; got PreActivation",
        ),
    ],
)
def test_trainings_that_would_become_others_are_refused(
    recipe: Recipe, change: dict[str, Any], message: str
):
    with pytest.raises(ValueRangeError, match=message):
        learner(recipe, replace(training_of(recipe), **change))


def test_muon_on_a_part_of_a_matrix_is_refused():
    with pytest.raises(ValueRangeError, match="whole matrices; got latent_shards=2"):
        learner(TopK(width=40), options=TrainingOptions(optimizer="muon"))


def test_a_falling_k_may_begin_above_the_latents_of_one_process_and_not_above_all():
    falling = Schedule(steps=10, initial_k=30)
    assert learner(TopK(width=40), schedule=falling).dictionary.width == 20
    with pytest.raises(ValueRangeError, match="at most the width, 40; got 41"):
        learner(TopK(width=40), schedule=replace(falling, initial_k=41))


def test_groups_that_would_lie_on_two_processes_are_refused():
    with pytest.raises(ValueRangeError, match="number of groups, k=5; got 2"):
        learner(GroupMax(width=40, k=5))


def test_a_sparsifier_of_ones_own_that_compares_is_refused():
    class Best(Sparsifier):
        kind, label, compares_latents = "best", "Best", True

        def select(self, pre: Any) -> Any:
            return pre.topk(1)

    batch = EncoderBatch(x=torch.zeros(3, D), W_enc=torch.zeros(D, 4), b_enc=torch.zeros(4))
    with pytest.raises(ValueRangeError, match="encoder for many processes; got best"):
        encode(Best(), batch, OnePart((0, 2)), 8)
    # With all latents at hand there is nothing to exchange.
    assert encode(Best(), batch, OnePart(tokens=(0, 2)), 4).values.shape == (3, 1)


def test_a_parameter_that_is_not_one_per_latent_is_refused():
    class Shifted(Sparsifier):
        kind, label = "shifted", "Shifted"

        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(()))

        def select(self, pre: Any) -> Any:
            return (pre + self.shift).relu()

    with pytest.raises(ValueRangeError, match=r"one shift per latent, 8; got the shape \[\]"):
        part_of(Shifted(), OnePart((0, 2)), 8)


def test_a_buffer_of_one_number_is_copied():
    part = part_of(BatchTopKActivation(3, 0.25), OnePart((1, 2)), 8)
    assert isinstance(part, BatchTopKActivation)
    assert float(part.threshold) == 0.25
