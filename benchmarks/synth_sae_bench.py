"""Recovery of known features: every recipe on SynthSAEBench at a reduced size, the 16k size beside.

    python -m benchmarks.synth_sae_bench [--samples N] [--seeds N]
    python -m benchmarks.synth_sae_bench --size 16k --device cuda --samples 200000000

The dictionaries have a quarter as many latents as there are features, and as many active ones as
there are features active among that most frequent quarter. Of recipes that set their sparsity by a
coefficient, several are trained and the one that comes nearest to that L0 is scored; on samples of
its own, so that the choice does not touch the scores. The samples are drawn while training.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.linear import RandomDictionary
from modelassay.decompositions.recipes import RECIPES
from modelassay.fitting.fit import fit
from modelassay.testbeds.synthetic import (
    SYNTH_16K,
    SYNTH_REDUCED,
    SyntheticModel,
    SyntheticSpec,
    synthetic_model,
)
from modelassay.testbeds.synthetic_scores import SyntheticScores, synthetic_scores
from modelassay.testbeds.synthetic_source import SyntheticActivations

SIZES = {"reduced": SYNTH_REDUCED, "16k": SYNTH_16K}
BATCH = 1024  # SynthSAEBench's
COEFFICIENTS = tuple(2 ** (step / 2) for step in range(-6, 3))  # times the default: 1/8 to 2
PUBLISHED = (
    ("BatchTopK", 0.7316, 0.7574, 0.9837, 0.7923),
    ("Matryoshka", 0.8793, 0.7927, 0.9987, 0.7792),
    ("matching pursuit", 0.4464, 0.6930, 0.8281, 0.8351),
    ("standard L1", 0.5562, 0.6039, 0.8976, 0.7654),
    ("JumpReLU", 0.7317, 0.7527, 0.9885, 0.7951),
)
"""F1, MCC, uniqueness and explained variance at L0 = 25 (SAELens' page on SynthSAEBench)."""
COLUMNS = ("f1", "mcc", "uniqueness", "explained_variance", "precision", "recall", "l0")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Recipes of one kind, of which the one nearest to the wanted L0 is scored."""

    name: str
    recipes: tuple[Recipe, ...]


def candidates(width: int, l0: float) -> list[Candidates]:
    """Every registered recipe at a sparsity as near to the wanted one as its options allow."""
    return [
        Candidates(
            name=kind.__name__,
            recipes=tuple(made(kind, width, options) for options in settings(kind, l0)),
        )
        for kind in RECIPES.values()
    ]


def made(kind: type[Recipe], width: int, options: dict[str, Any]) -> Recipe:
    """The recipe; with the nearest k that divides the width where only such a k will do."""
    try:
        return kind(width=width, **options)
    except ValueRangeError:
        if "k" not in options:
            raise
        divisors = [k for k in range(1, width + 1) if width % k == 0]
        changed: dict[str, Any] = {"k": min(divisors, key=lambda k: abs(k - options["k"]))}
        return kind(width=width, **changed)


def settings(kind: type[Recipe], l0: float) -> list[dict[str, Any]]:
    """What to set of a recipe's options, one or several ways."""
    defaults: dict[str, Any] = {field.name: field.default for field in fields(kind)}
    if "k" in defaults:
        return [{"k": max(1, round(l0))}]
    if "target_l0" in defaults:
        return [{"target_l0": l0}]
    for name, default in defaults.items():
        if name.endswith("coefficient"):
            return [{name: factor * default} for factor in COEFFICIENTS]
    return [{}]


def nearest(
    dictionaries: list[Dictionary], model: SyntheticModel, l0: float, seed: int
) -> Dictionary:
    """The one whose L0 is nearest to the wanted one."""
    x = model.rows(20_000, derived(seed, "choice"))
    return min(dictionaries, key=lambda one: abs(float(one.encode(x).l0().mean()) - l0))


def trained(
    model: SyntheticModel, width: int, l0: float, samples: int, seeds: int
) -> dict[str, list[Dictionary]]:
    """The dictionaries of every seed and kind, all of a seed on one pass."""
    source = SyntheticActivations.of(model, n_fit=samples)
    kinds = candidates(width, l0)
    found: dict[str, list[Dictionary]] = {kind.name: [] for kind in kinds}
    for seed in range(seeds):
        fitted = iter(
            fit(
                [recipe for kind in kinds for recipe in kind.recipes],
                source,
                tokens=samples,
                batch_tokens=BATCH,
                learning_rate=None if samples < 100_000_000 else 3e-4,
                seed=[seed for kind in kinds for _ in kind.recipes],
                device=model.device,
            )
        )
        for kind in kinds:
            some = [next(fitted) for _ in kind.recipes]
            found[kind.name].append(nearest(some, model, l0, seed))
    return found


def drawing_rate(spec: SyntheticSpec, samples: int, device: str) -> str:
    """How many samples are drawn in a second; where the directions point makes no difference."""
    model = synthetic_model(replace(spec, orthogonalisation_steps=0), seed=0, device=device)
    model.rows(1000, derived(0, "warm"))
    wall, cpu = time.perf_counter(), time.process_time()
    model.rows(samples, derived(0, "rate")).sum().item()  # waits for a GPU
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{samples / wall:,.0f} samples/s drawn, {samples / cpu:,.0f} per CPU second"


def row(name: str, scores: list[SyntheticScores]) -> str:
    """Mean and, of several seeds, standard deviation of each score."""
    cells = []
    for column in (*COLUMNS, "dead_share"):
        values = [getattr(one, column) for one in scores]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}")
    return f"| {name} | {' | '.join(cells)} |"


def setting_of(dictionary: Dictionary) -> str:
    """What of its recipe sets the sparsity."""
    recipe = dictionary.recipe
    for name in ("k", "target_l0"):
        if hasattr(recipe, name):
            return f"{name}={getattr(recipe, name):.3g}"
    for field in fields(recipe) if recipe else ():
        if field.name.endswith("coefficient"):
            return f"{field.name}={getattr(recipe, field.name):.3g}"
    return dictionary.name


def main() -> None:
    """Print our table, and the published one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="reduced")
    parser.add_argument("--samples", type=int, default=500_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    for name, samples in (("reduced", 100_000), ("16k", 10_000)):
        print(f"{name}: {drawing_rate(SIZES[name], samples, options.device)}")
    model = synthetic_model(SIZES[options.size], seed=0, device=options.device)
    spec = model.spec
    width = spec.n_features // 4
    l0 = float(model.expected_rates[:width].sum())
    kinds = trained(model, width, l0, options.samples, options.seeds)
    wanted = max(1, round(l0))
    random: list[Dictionary] = [
        RandomDictionary(
            width, spec.d, wanted, generator=derived(seed, "random"), mean=model.bias.cpu()
        ).to(model.device)
        for seed in range(options.seeds)
    ]
    print(
        f"F={spec.n_features}, d={spec.d}, {width} latents, wanted L0 {l0:.2f} (true L0 of all "
        f"features {float(model.expected_rates.sum()):.2f}), {options.samples:,} samples, "
        f"{options.seeds} seeds, {torch.get_num_threads()} threads\n"
    )
    print(f"| {spec.n_features} features | {' | '.join(COLUMNS)} | dead |".replace("_", " "))
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, some in [*kinds.items(), ("random directions", random)]:
        scores = [
            synthetic_scores(one, model, samples=100_000, generator=derived(seed, "scores"))
            for seed, one in enumerate(some)
        ]
        chosen = {setting_of(one) for one in some}
        print(row(f"{name} ({', '.join(sorted(chosen))})", scores))
    print("\n| published, 16,384 features, L0 = 25 | f1 | mcc | uniqueness | explained variance |")
    print("|---|---|---|---|---|")
    for name, *published in PUBLISHED:
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in published)} |")


if __name__ == "__main__":
    main()
