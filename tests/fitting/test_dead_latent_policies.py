"""Each policy for dead latents, on each kind of recipe, brings planted dead ones back to life."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.fitting.dead_latent_policies import with_dead_latent_policy
from modelassay.fitting.learner import Learner
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.pre_activation import PreActivation
from modelassay.fitting.options import DeadLatentPolicy, TrainingOptions
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, K, TOKENS, STEPS = 10, 48, 4, 30, 80
DEPTH = 0.25
BURIED = torch.arange(0, WIDTH, 4)
RECIPES: list[Recipe] = [
    TopK(width=WIDTH, k=K),
    BatchTopK(width=WIDTH, k=K),
    AbsTopK(width=WIDTH, k=K),
    GroupMax(width=WIDTH, k=K),
    Matryoshka(width=WIDTH, k=K, prefixes=(20, WIDTH)),
    ReLUL1(width=WIDTH, l1_coefficient=0.5),
    JumpReLU(width=WIDTH, target_l0=float(K), bandwidth=0.95),
    Gated(width=WIDTH, l1_coefficient=0.1),
]


def rows(seed: int) -> Tensor:
    return torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(seed)) + 0.5


def buried(recipe: Recipe, policy: DeadLatentPolicy) -> Learner:
    """A learner with a quarter of its latents where they do not fire, but not far below."""
    options = TrainingOptions(
        dead_latents=policy,
        pre_activation_coefficient=1.0,
        resampling_share=0.1,
        resampling_gain=1.0,
    )
    mean = torch.full((D,), 0.5)
    dictionary = recipe.build(D, D, mean, torch.Generator().manual_seed(1), None)
    with torch.no_grad():
        # Small columns: silent even where the bias does nothing, as for AbsTopK.
        dictionary.W_enc[:, BURIED] *= 0.1
        if not dictionary.activation.signed:
            compared = dictionary.activation.compares_latents
            # A rectified AuxK sees a compared latent only while it is positive somewhere.
            dictionary.b_enc[BURIED] = 0.0 if policy == "auxk" and compared else -DEPTH
    return Learner(
        name="under test",
        dictionary=dictionary,
        # Buried as deep as they were made, not scaled with the rest.
        training=replace(
            with_dead_latent_policy(training_of(recipe), options), matches_start=False
        ),
        schedule=Schedule(steps=STEPS),
        learning_rate=1e-2,
        dead_window=200,
        data=DataScale(mean=mean, total_variance=10.0),
        workspace=torch.empty(7 * WIDTH),
    )


def trained(recipe: Recipe, policy: DeadLatentPolicy) -> Learner:
    """The learner at the end of a run."""
    learner = buried(recipe, policy)
    for step in range(STEPS):
        _, forward = learner.step(rows(step % 5), step)
        learner.census()
        learner.resample(forward, step + 1)
    return learner


def still_dead(recipe: Recipe, policy: DeadLatentPolicy) -> int:
    """How many of the buried latents are dead at the end of a run."""
    return int(trained(recipe, policy).latents.dead()[BURIED].sum())


without = cache(lambda recipe: still_dead(recipe, "none"))


@pytest.mark.parametrize("policy", ["auxk", "pre_activation", "resample"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_buried_latents_live_again(recipe: Recipe, policy: DeadLatentPolicy):
    if isinstance(recipe, AbsTopK) and policy == "auxk":
        pytest.skip("here what is left is too little to win among magnitudes; see below")
    assert still_dead(recipe, policy) < without(recipe) / 2


def test_auxk_makes_dead_latents_of_an_abs_topk_grow():
    recipe = RECIPES[2]
    assert isinstance(recipe, AbsTopK)
    norms = [
        trained(recipe, policy).dictionary.W_enc.detach()[:, BURIED].norm(dim=0).mean()
        for policy in ("none", "auxk")
    ]
    assert float(norms[0]) == pytest.approx(0.1, rel=1e-4)
    assert float(norms[1]) > 0.2


def test_policies_take_the_place_of_the_recipes_own():
    own = training_of(RECIPES[0])
    assert with_dead_latent_policy(own, TrainingOptions()) is own
    kinds = (AuxK, PreActivation)
    expected: list[tuple[DeadLatentPolicy, tuple[object, ...], bool]] = [
        ("none", (), False),
        ("auxk", (AuxK(coefficient=0.5),), False),
        ("pre_activation", (PreActivation(coefficient=0.25),), False),
        ("resample", (), True),
    ]
    for policy, terms, resamples in expected:
        options = TrainingOptions(
            dead_latents=policy, auxk_coefficient=0.5, pre_activation_coefficient=0.25
        )
        training = with_dead_latent_policy(own, options)
        found = tuple(o for o in training.objectives if isinstance(o, kinds))
        assert (found, training.resampling is not None) == (terms, resamples)
        assert training.objectives[0] == own.objectives[0]


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: TrainingOptions(auxk_coefficient=0.0), "auxk_coefficient"),
        (lambda: TrainingOptions(pre_activation_coefficient=-1.0), "pre_activation_coefficient"),
        (lambda: TrainingOptions(resampling_gain=float("nan")), "resampling_gain"),
    ],
)
def test_policies_that_would_do_nothing_are_refused(make: Callable[[], object], setting: str):
    with pytest.raises(ValueRangeError, match=f"{setting} must be finite and above 0.*'none'"):
        make()
