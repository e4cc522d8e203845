"""What every testbed must fulfil, ours and yours: `conformance` checks it.

- building twice with one seed gives the same activations bit for bit, another seed gives others;
- an oracle of the model's features scores V = 1, an oracle of the activations' features V = 0;
- a random dictionary finds neither;
- permuting and rescaling latents changes no score;
- a method that sees only activations is at chance in the paired arms.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.scores import (
    MISSED,
    Scores,
    beyond_chance,
    correlation,
    discrimination,
    match,
)
from modelassay.testbeds.testbed import COINCIDE, Testbed
from modelassay.testbeds.truth import Truth

ORACLE_V = 0.8
"""An oracle of one truth must come this near to it: its V is above 0.8, or below 0.2 (ours)."""
_RANDOM_MATCHES = 32  # directions that random dictionaries match in all, at least (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One demand on a testbed, and what was found."""

    name: str
    passed: bool
    found: str


def conformance(kind: TestbedKind, seed: int = 0) -> tuple[Check, ...]:
    """Build a testbed and check all that its scores rely on.

    Raises:
        ValueRangeError: if the testbed cannot even be built; see `Testbed`.
    """
    testbed = kind.build(seed)
    return (
        *_reproducible(kind, testbed, seed),
        *(check for arm in testbed.arms for check in _oracles(testbed, arm)),
        *(check for arm in testbed.arms for check in _random(testbed, arm, seed)),
        *_invariant(testbed, seed),
        *_at_chance(testbed, seed),
    )


def _reproducible(kind: TestbedKind, testbed: Testbed, seed: int) -> Iterator[Check]:
    first = testbed.arms[0].activations
    again, other = (kind.build(s).arms[0].activations for s in (seed, seed + 1))
    yield Check(
        name="one seed, one construction",
        passed=torch.equal(first, again),
        found=f"built twice with seed {seed}",
    )
    yield Check(
        name="another seed, another construction",
        passed=first.shape != other.shape or not torch.equal(first, other),
        found=f"seeds {seed} and {seed + 1}",
    )


def oracle_scores(testbed: Testbed, arm: Arm, truth: Truth) -> Scores:
    """Scores of latents that are a truth's own features."""
    return testbed.scores_of(arm, truth.values(arm.interventional), covectors=truth.covectors)


def _oracles(testbed: Testbed, arm: Arm) -> Iterator[Check]:
    model, activations = arm.model_truth, arm.activations_truth
    by_model = oracle_scores(testbed, arm, model)
    by_activations = oracle_scores(testbed, arm, activations)
    yield Check(
        name=f"{arm.name}: oracles find their own truth",
        passed=min(by_model.match_model, by_activations.match_activations) > COINCIDE,
        found=f"{by_model.match_model:.3f}, {by_activations.match_activations:.3f}",
    )
    if len(model) == len(activations) and testbed.similarity == "values":
        values = (truth.values(arm.interventional) for truth in (model, activations))
        if match(correlation(*values)) > COINCIDE:
            return  # the arm in which the activations' features are the model's
    yield Check(
        name=f"{arm.name}: oracles do not find the other truth",
        passed=by_model.v > ORACLE_V and by_activations.v < 1 - ORACLE_V,
        found=f"V = {by_model.v:.3f} and {by_activations.v:.3f}",
    )


def _random(testbed: Testbed, arm: Arm, seed: int) -> Iterator[Check]:
    # Seeds that the nulls do not use; several, where few directions are matched: the cosine of a
    # random direction with a single one varies much.
    directions = testbed.similarity == "directions"
    draws = math.ceil(_RANDOM_MATCHES / len(arm.model_truth)) if directions else 1
    found = [
        testbed.scores(arm, METHODS["random"].make(arm, testbed.size, seed + 1000 + draw))
        for draw in range(draws)
    ]
    model = sum(scores.match_model for scores in found) / draws
    activations = sum(scores.match_activations for scores in found) / draws
    yield Check(
        name=f"{arm.name}: random dictionaries find neither",
        passed=max(model, activations) < MISSED,
        found=f"{model:.3f}, {activations:.3f}",
    )


def _invariant(testbed: Testbed, seed: int) -> Iterator[Check]:
    arm = testbed.arms[0]
    generator = derived(seed, "invariance")
    width = testbed.size.width
    order = torch.randperm(width, generator=generator)
    scale = 0.5 + torch.rand(width, generator=generator)
    weights = torch.randn(width, arm.activations.shape[1], generator=generator)
    plain = testbed.scores(arm, _relu_dictionary(weights, weights))
    changed = testbed.scores(
        arm, _relu_dictionary(weights[order] * scale[:, None], weights[order] / scale[:, None])
    )
    before, after = (
        torch.tensor([s.match_model, s.match_activations, s.s_graph]) for s in (plain, changed)
    )
    yield Check(
        name="permuting and rescaling latents changes nothing",
        passed=torch.allclose(before, after, atol=1e-4, equal_nan=True),
        found=f"largest change {float((before - after).nan_to_num().abs().max()):.1e}",
    )


def _relu_dictionary(encoder: Tensor, decoder: Tensor) -> Dictionary:
    width, d = decoder.shape
    return Dictionary(
        W_enc=encoder.t(),
        b_enc=decoder.new_zeros(width),
        W_dec=decoder,
        b_dec=decoder.new_zeros(d),
        activation=ReLUActivation(),
    )


def _at_chance(testbed: Testbed, seed: int) -> Iterator[Check]:
    if len(testbed.arms) < 2:
        return
    table = [
        testbed.affinities(METHODS["random"].make(arm, testbed.size, seed)) for arm in testbed.arms
    ]
    found = beyond_chance(discrimination(table), len(testbed.arms))
    yield Check(
        name="a method that sees activations alone is at chance",
        passed=abs(found) < 1e-9,
        found=f"PAD~ = {found:.3f}",
    )
