"""Trials on the testbeds: evidence on small models of any input, against both truths.

A latent is of the model if it is more like one of the features of the model than like any of the
activations, of the activations if the other way round, and counts for neither where it is like
nothing. Evidence that needs text (*written*, the twins of a language model) has no meaning here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.audit.trials import Trial, values_of
from modelassay.audit.usual_metrics import explained_variance_parts
from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import latent_activity
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.read_rows import read_rows
from modelassay.evidence.stable import stable, stable_geometry
from modelassay.evidence.surrogate import gaussian_surrogate
from modelassay.evidence.visible_rows import visible_rows
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.methods import Method
from modelassay.testbeds.testbed import Testbed

LIKE = 0.7
"""Least similarity of a latent with the feature it is (half of the variance; ours)."""
_LATENTS = 100  # of a decomposition and truth, at most, so that no testbed outweighs others (ours)
_SEED_OF_SECOND = 500  # added for the second fit
_GROUPS = 50  # of held-out inputs, which stand for documents


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """A decomposition and a second one from other randomness."""

    first: Decomposition
    second: Decomposition


def testbed_trials(
    testbed: Testbed, methods: Sequence[Method], *, seed: int, progress: Progress
) -> list[Trial]:
    """All labelled latents of some methods in all arms of a testbed.

    Args:
        testbed: the construction.
        methods: those that see only activations are fitted once for all arms.
        seed: of the fits.
        progress: where to report.
    """
    shared: dict[str, _Pair] = {}
    trials: list[Trial] = []
    with progress.task(
        f"Trials on {testbed.name}", total=len(methods) * len(testbed.arms), unit="methods"
    ) as task:
        for arm in testbed.arms:
            for method in methods:
                pair = shared.get(method.name) or _fitted(testbed, arm, method, seed)
                if method.sees == "activations":
                    shared[method.name] = pair
                trials += _trials(testbed, arm, method, pair, seed)
                task.advance(1)
    return trials


def _fitted(testbed: Testbed, arm: Arm, method: Method, seed: int) -> _Pair:
    return _Pair(
        first=method.make(arm, testbed.size, seed),
        second=method.make(arm, testbed.size, seed + _SEED_OF_SECOND),
    )


def _trials(testbed: Testbed, arm: Arm, method: Method, pair: _Pair, seed: int) -> list[Trial]:
    model, activations = testbed.nearest(arm, pair.first)
    of_model = (model >= LIKE) & (model > activations)
    of_activations = (activations >= LIKE) & (activations > model)
    generator = derived(seed, testbed.name, arm.name, method.name)
    latents = torch.cat([_some(of_model, generator), _some(of_activations, generator)])
    if len(latents) == 0:
        return []
    evidence, codes = _evidence(arm, pair, latents, generator)
    heldout = arm.activations[arm.rows.heldout]
    explained = explained_variance_parts(pair.first, codes, heldout, latents)
    return [
        Trial(
            testbed=testbed.name,
            seed=seed,
            arm=arm.name,
            latent=latent,
            cluster=f"{testbed.name}/{seed}",
            kind=method.name,
            of_model=bool(of_model[latent]),
            values=values_of(evidence, latent) | {explained.name: float(explained.values[number])},
        )
        for number, latent in enumerate(latents.tolist())
    ]


def _some(chosen: Tensor, generator: torch.Generator) -> Int[Tensor, " some"]:
    found = chosen.nonzero()[:, 0]
    return found[torch.randperm(len(found), generator=generator)[:_LATENTS]]


def _evidence(
    arm: Arm, pair: _Pair, latents: Int[Tensor, " some"], generator: torch.Generator
) -> tuple[tuple[Evidence, ...], Codes]:
    inputs, activations = (x[arm.rows.heldout] for x in (arm.data, arm.activations))
    codes = pair.first.encode(activations)
    chosen = codes.only(latents)
    group = torch.arange(len(inputs)) % _GROUPS
    surrogate = pair.first.encode(gaussian_surrogate(activations, generator))
    return (
        read_rows(arm.subject, pair.first, chosen, inputs, latents=latents, generator=generator),
        visible_rows(arm.subject, pair.first, chosen, inputs, generator=generator),
        stable(chosen, pair.second.encode(activations), group, generator=generator),
        stable_geometry(pair.first.directions, pair.second.directions, generator=generator),
        *latent_activity(chosen, surrogate, group, generator),
    ), codes
