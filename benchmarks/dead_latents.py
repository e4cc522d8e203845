"""What each policy for dead latents does to how many there are: every policy with four recipes.

    python -m benchmarks.dead_latents                        # the seeds reported
    python -m benchmarks.dead_latents --seeds 100 101    # those on which settings were chosen
    MODELASSAY_SHARED=../shared python -m benchmarks.dead_latents    # a real model besides

A latent counts as dead if it is silent on every held-out token. Differences are to the same recipe
and seed without a policy, with 95 % t-intervals over the seeds. Short runs, wide dictionaries and
learning rates above the default, so that latents do die.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import scipy.stats
import torch

from modelassay.activations.corpus import read_texts
from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import BatchTopK, JumpReLU, ReLUL1, TopK
from modelassay.fitting.fit import fit
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.plan import default_learning_rate
from modelassay.subjects.load import load_subject

REPORTED_SEEDS = (0, 1, 2)
POLICIES = {
    "none": TrainingOptions(dead_latents="none"),
    "AuxK": TrainingOptions(dead_latents="auxk"),
    "AuxK, straight through": TrainingOptions(dead_latents="auxk", auxk_straight_through=True),
    "pre-activation loss": TrainingOptions(dead_latents="pre_activation"),
    "resampling": TrainingOptions(dead_latents="resample"),
}
TOKENS = 250_000  # harvested


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe, and the learning rate at which its latents die, in units of the default."""

    recipe: Recipe
    rate: float

    @property
    def compares(self) -> bool:
        """Whether latents are compared with each other."""
        return isinstance(self.recipe, TopK | BatchTopK)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What is reported of one dictionary, on held-out tokens."""

    dead: float
    explained: float
    l0: float


def cases(width: int) -> list[Case]:
    """The recipes at their sparsities."""
    return [
        Case(recipe=TopK(width=width, k=16), rate=2),
        Case(recipe=BatchTopK(width=width, k=16), rate=2),
        Case(recipe=ReLUL1(width=width, l1_coefficient=5.0), rate=1),
        Case(recipe=JumpReLU(width=width, target_l0=16.0), rate=4),
    ]


@torch.no_grad()
def score(dictionary: Dictionary, activations: Harvest) -> Score:
    """Dead share, explained variance and L0."""
    x = activations.select("heldout").activations().float()
    fired = torch.zeros(dictionary.width, dtype=torch.bool)
    error = active = 0.0
    for rows in x.split(2048):
        codes = dictionary.encode(rows)
        fired[codes.indices[codes.values != 0]] = True
        active += float((codes.values != 0).sum())
        error += float((rows - dictionary.decode(codes)).square().sum())
    return Score(
        dead=1 - float(fired.float().mean()),
        explained=1 - error / float((x - x.mean(0)).square().sum()),
        l0=active / len(x),
    )


def trained(
    case: Case, policy: str, activations: Harvest, seed: int, steps: int, batch: int
) -> Score:
    """The scores of one dictionary."""
    dictionary = fit(
        case.recipe,
        activations,
        tokens=steps * batch,
        batch_tokens=batch,
        learning_rate=case.rate * default_learning_rate(case.recipe.width, steps),
        seed=seed,
        options=POLICIES[policy],
        progress=SILENT,
    )
    return score(dictionary, activations)


def difference(with_policy: Sequence[float], without: Sequence[float]) -> str:
    """Mean difference of pairs and its 95 % t-interval."""
    pairs = [a - b for a, b in zip(with_policy, without, strict=True)]
    mean = statistics.mean(pairs)
    if len(pairs) < 2:
        return f"{mean:+.3f}"
    half = scipy.stats.t.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def table(name: str, activations: Harvest, options: argparse.Namespace) -> None:
    """Print one line per recipe and policy."""
    print(f"\n{name}: width {options.width}, {options.steps} steps of {options.batch} tokens,")
    print(f"seeds {options.seeds}, {TOKENS:,} tokens harvested\n")
    print("| recipe | policy | dead | difference | explained | difference | L0 |")
    print("|---|---|---|---|---|---|---|")
    for case in cases(options.width):
        if type(case.recipe).__name__ not in options.recipes:
            continue
        scores: dict[str, list[Score]] = {}
        for policy in ("none", *(p for p in options.policies if p != "none")):
            if "straight" in policy and not case.compares:
                continue  # there, AuxK always is
            scores[policy] = [
                trained(case, policy, activations, seed, options.steps, options.batch)
                for seed in options.seeds
            ]
            found, bare = scores[policy], scores["none"]
            dead, explained = ([s.dead for s in found], [s.explained for s in found])
            columns = [
                f"{type(case.recipe).__name__}, rate x {case.rate:g}",
                policy,
                f"{statistics.mean(dead):.3f}",
                difference(dead, [s.dead for s in bare]) if policy != "none" else "",
                f"{statistics.mean(explained):.3f}",
                difference(explained, [s.explained for s in bare]) if policy != "none" else "",
                f"{statistics.mean(s.l0 for s in found):.1f}",
            ]
            print(f"| {' | '.join(columns)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(REPORTED_SEEDS))
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--recipes", nargs="+", default=["TopK", "BatchTopK", "ReLUL1", "JumpReLU"])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    options = parser.parse_args()
    bundled = harvest(
        load_subject("bundled"), stdlib_corpus(), sites="resid_post.2", tokens=TOKENS,
        progress=SILENT,
    )  # fmt: skip
    table("bundled subject, resid_post.2", bundled, options)
    shared = os.environ.get("MODELASSAY_SHARED")
    if shared is None:
        print("\nNo real model: MODELASSAY_SHARED is not set.")
        return
    folder = Path(shared) / "data"
    real = harvest(
        load_subject(folder / "stories260k"),
        read_texts(folder / "text_tinystories" / "stories.txt"),
        sites="resid_post.1",
        tokens=TOKENS,
        progress=SILENT,
    )
    table("stories260k, resid_post.1", real, options)


if __name__ == "__main__":
    main()
