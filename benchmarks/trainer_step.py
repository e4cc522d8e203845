"""What one training step costs, in units of one dense encoder product of the same size.

    python -m benchmarks.trainer_step

The unit is `[batch, d] x [d, width]` in float32 into memory that is kept, timed right before and
after each step, so that ratios survive a noisy machine. Median, least and largest over rounds.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from modelassay.activations.statistics import Moments
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    GroupMax,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.fitting.learners import learners_of
from modelassay.fitting.plan import Plan
from modelassay.subjects.site import Site

ROUNDS = 15
BATCH = 2048
SIZES = {"small": (288, 4608, 32), "audit": (128, 1024, 16)}


def milliseconds(work: Callable[[], object]) -> float:
    """Wall-clock milliseconds of one call."""
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


def step_costs(recipe: Recipe, d: int) -> tuple[list[float], float]:
    """Cost of each round's step in units, and the least unit in milliseconds."""
    batches = torch.randn(4, BATCH, d, generator=generator(0)).unbind()
    plan = Plan.of(
        [recipe],
        site=Site.parse("resid_post.0"),
        tokens=100 * BATCH,
        batch_tokens=BATCH,
        learning_rate=1e-3,
        seed=0,
    )
    (learner,) = learners_of(plan, Moments.of(batches[0]), 1.0, torch.device("cpu"))
    weight = learner.dictionary.W_enc.detach()
    product = torch.empty(BATCH, recipe.width)
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


def main() -> None:
    """Print one line per size and recipe."""
    print(f"one step, batch {BATCH}, {torch.get_num_threads()} threads; 1 unit = encoder product")
    for size, (d, width, k) in SIZES.items():
        for recipe in (
            TopK(width=width, k=k),
            BatchTopK(width=width, k=k),
            Matryoshka(width=width, k=k),
            AbsTopK(width=width, k=k),
            GroupMax(width=width, k=k),
            ReLUL1(width=width),
        ):
            costs, unit = step_costs(recipe, d)
            print(
                f"{size:6} d={d:<4} width={width:<5} {type(recipe).__name__:10}"
                f" {statistics.median(costs):5.2f} units ({min(costs):.2f} to {max(costs):.2f});"
                f" unit {unit:.1f} ms"
            )


if __name__ == "__main__":
    main()
