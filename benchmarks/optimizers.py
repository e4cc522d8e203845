"""Optimisers, learning rates, whitening and a falling k, at equal tokens.

    python -m benchmarks.optimizers          # the rates in the table, on seeds kept for reporting
    python -m benchmarks.optimizers choose   # the grid on which default rates were chosen

TopK on the bundled subject's middle residual site. Explained variance and the share of latents that
are silent on all held-out tokens, in the activations' own units whatever a run trained in: mean
and standard deviation over seeds. Rates are multiples of Adam's default one.
"""

import statistics
import sys
from dataclasses import dataclass, replace

import torch

from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.recipes import BatchTopK, TopK
from modelassay.fitting.fit import fit
from modelassay.fitting.options import OptimizerName, TrainingOptions
from modelassay.fitting.plan import default_learning_rate
from modelassay.subjects.load import load_subject

SITE = "resid_post.2"
HARVESTED = 200_000
TOKENS = 500_000
BATCH = 1024
RECIPE = TopK(width=1024, k=16)
REPORTED = (0, 1, 2)
CHOOSING = (10, 11)
GRID: dict[OptimizerName, tuple[float, ...]] = {
    "adam": (0.3, 0.5, 1, 2, 3),
    "signum": (0.03, 0.1, 0.2, 0.3, 1),
    "muon": (0.3, 0.5, 1, 1.5, 2, 3),
}
AROUND_THE_DEFAULT = (0.3, 1.0, 3.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One line of the table."""

    options: TrainingOptions
    rate: float | None = None
    """As a multiple of Adam's default; None for the optimiser's own default."""
    recipe: TopK | BatchTopK = RECIPE

    @property
    def name(self) -> str:
        """The options that are not the usual ones, and the rate."""
        usual = TrainingOptions().as_json()
        changed = [
            f"{name} {value}"
            for name, value in self.options.as_json().items()
            if value != usual[name] and name != "optimizer"
        ]
        rate = "default" if self.rate is None else f"{self.rate:g} ×"
        kind = type(self.recipe).__name__
        return " | ".join([kind, self.options.optimizer, rate, ", ".join(changed) or "–"])


def steps_rate(width: int) -> float:
    """Adam's default rate here."""
    return default_learning_rate(width, TOKENS // BATCH)


def figures(dictionary: Dictionary, x: torch.Tensor) -> tuple[float, float, float]:
    """Explained variance, share of silent latents, and mean L0."""
    codes = dictionary.encode(x)
    error = float((x - dictionary.decode(codes)).square().sum())
    spread = float((x - x.mean(0)).square().sum())
    fired = torch.zeros(dictionary.width, dtype=torch.bool)
    fired[codes.indices[codes.values != 0]] = True
    return 1 - error / spread, 1 - float(fired.float().mean()), float(codes.l0().mean())


def line(case: Case, activations: Harvest, seeds: tuple[int, ...]) -> str:
    """A case's row: mean and standard deviation over seeds, all trained on one pass."""
    dictionaries = fit(
        [case.recipe] * len(seeds),
        activations,
        tokens=TOKENS,
        batch_tokens=BATCH,
        learning_rate=None if case.rate is None else case.rate * steps_rate(case.recipe.width),
        seed=seeds,
        options=case.options,
        progress=SILENT,
    )
    x = activations.select("heldout").activations().float()
    columns = zip(*(figures(dictionary, x) for dictionary in dictionaries), strict=True)
    cells = (f"{statistics.mean(c):.4f} ± {statistics.stdev(c):.4f}" for c in columns)
    return f"| {case.name} | " + " | ".join(cells) + " |"


def reported_cases() -> list[Case]:
    """Each optimiser around its default rate, and every other option by itself."""
    own = {name: steps_rate_of(name) for name in GRID}
    cases = [
        Case(options=TrainingOptions(optimizer=name), rate=factor * own[name])
        for name in GRID
        for factor in AROUND_THE_DEFAULT
    ]
    usual = TrainingOptions()
    others = (
        replace(usual, schedule="cosine"),
        replace(usual, schedule="constant"),
        replace(usual, normalisation="whitening"),
        replace(usual, initial_k=64),
        replace(usual, initial_k=64, k_share=0.5),
        replace(usual, precision="bfloat16"),
    )
    cases += [Case(options=options) for options in others]
    batch = BatchTopK(width=RECIPE.width, k=RECIPE.k)
    whitened = replace(usual, normalisation="whitening")
    return [*cases, *(Case(options=options, recipe=batch) for options in (usual, whitened))]


def steps_rate_of(name: OptimizerName) -> float:
    """An optimiser's default rate here, as a multiple of Adam's."""
    steps = TOKENS // BATCH
    return default_learning_rate(RECIPE.width, steps, name) / steps_rate(RECIPE.width)


def main() -> None:
    """Print the table."""
    choosing = "choose" in sys.argv[1:]
    seeds = CHOOSING if choosing else REPORTED
    cases = reported_cases()
    if choosing:
        cases = [
            Case(options=TrainingOptions(optimizer=name), rate=rate)
            for name, rates in GRID.items()
            for rate in rates
        ]
    subject = load_subject("bundled")
    activations = harvest(subject, stdlib_corpus(), SITE, tokens=HARVESTED, progress=SILENT)
    print(
        f"{SITE}, width {RECIPE.width}, k {RECIPE.k}, {TOKENS:,} tokens in batches of {BATCH}, "
        f"seeds {seeds}; Adam's default rate {steps_rate(RECIPE.width):.2g}\n"
    )
    print("| recipe | optimiser | rate | other options | explained variance | silent | L0 |")
    print("|---|---|---|---|---|---|---|")
    for case in cases:
        print(line(case, activations, seeds), flush=True)


if __name__ == "__main__":
    main()
