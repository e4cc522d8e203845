"""What one training step costs, in units of one dense encoder product of the same size.

    python -m benchmarks.trainer_step

The unit is `[batch, d] x [d, width]` in float32 into memory that is kept, timed right before and
after each step, so that ratios survive a noisy machine. Median, least and largest over rounds.
Activations are normal numbers, on which JumpReLU starts where k latents a token are active.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from scipy.special import ndtri

from modelassay.activations.statistics import Moments
from modelassay.core.randomness import generator
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
from modelassay.decompositions.screening import screening
from modelassay.fitting.learners import learners_of
from modelassay.fitting.plan import Plan
from modelassay.subjects.site import Site

ROUNDS = 15
SIZES = {
    "small": (288, 4608, 32, 2048),
    "large": (768, 12288, 32, 4096),
    "audit": (128, 1024, 16, 2048),
}


def milliseconds(work: Callable[[], object]) -> float:
    """Wall-clock milliseconds of one call."""
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


def step_costs(recipe: Recipe, d: int, batch: int) -> tuple[list[float], float]:
    """Cost of each round's step in units, and the least unit in milliseconds."""
    batches = torch.randn(4, batch, d, generator=generator(0)).unbind()
    plan = Plan.of(
        [recipe],
        site=Site.parse("resid_post.0"),
        tokens=100 * batch,
        batch_tokens=batch,
        learning_rate=1e-3,
        seed=0,
    )
    (learner,) = learners_of(plan, Moments.of(batches[0]), 1.0, torch.device("cpu"))
    weight = learner.dictionary.W_enc.detach()
    product = torch.empty(batch, recipe.width)
    costs: list[float] = []
    units: list[float] = []
    for step in range(ROUNDS + 3):
        x = batches[step % len(batches)]
        unit = partial(torch.mm, x, weight, out=product)
        before = milliseconds(unit)
        cost = milliseconds(partial(learner.step, x, step))
        after = milliseconds(unit)
        if step >= 3:  # the first steps fault memory in
            units += [before, after]
            costs.append(2 * cost / (before + after))
    return costs, min(units)


def ways(width: int, k: int) -> list[tuple[str, Recipe, bool]]:
    """What is timed: a name, a recipe, and whether products may be screened in bfloat16."""
    # Pre-activations start standard normal.
    bound = float(ndtri(1 - k / width))
    jump = JumpReLU(width=width, target_l0=k, initial_threshold=bound)
    recipes = [
        TopK(width=width, k=k),
        BatchTopK(width=width, k=k),
        Matryoshka(width=width, k=k),
        AbsTopK(width=width, k=k),
        GroupMax(width=width, k=k),
        ReLUL1(width=width),
        jump,
    ]
    listed = [(type(recipe).__name__, recipe, True) for recipe in recipes]
    return [
        *listed,
        ("TopK, unscreened", recipes[0], False),
        ("JumpReLU, unscreened", jump, False),
        ("JumpReLU, whole windows", replace(jump, window_stride=1), True),
        ("JumpReLU, whole windows, unscreened", replace(jump, window_stride=1), False),
    ]


def main() -> None:
    """Print one line per size and recipe."""
    print(f"one step, {torch.get_num_threads()} threads; 1 unit = encoder product")
    for size, (d, width, k, batch) in SIZES.items():
        for name, recipe, screened in ways(width, k):
            with nullcontext() if screened else screening(False):
                costs, unit = step_costs(recipe, d, batch)
            print(
                f"{size:6} d={d:<4} width={width:<6} {name:36}"
                f" {statistics.median(costs):5.2f} units ({min(costs):.2f} to {max(costs):.2f});"
                f" unit {unit:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
