"""Whether archetypal decoders are more alike across seeds than TopK's, and what that costs.

    python -m benchmarks.archetypal                  # the seeds reported
    python -m benchmarks.archetypal --seeds 100 101  # those on which settings were chosen

TopK, TopK with an archetypal decoder of several relaxations, and matching pursuit, on the bundled
subject: the same width, k, tokens and learning rate. Each seed has its own data order, sample,
clusters and start. A relaxation without bound is a free decoder that merely starts at the same
candidates: what it shares with the others is owed to the start, not to the constraint. The
decoders at that start are compared as well.

Of two seeds: for each direction its largest cosine with one of the other's (mean of both ways), and
the mean cosine of the best one-to-one match (Hungarian).
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.optimize
import torch

from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import Archetypal, MatchingPursuit, TopK
from modelassay.fitting.fit import fit
from modelassay.subjects.load import load_subject

REPORTED_SEEDS = (0, 1, 2)
RELAXATIONS = (0.0, 1.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike the directions of two dictionaries are."""

    largest: float
    matched: float


@torch.no_grad()
def likeness(one: Dictionary, other: Dictionary) -> Likeness:
    """Mean largest cosine, and mean cosine of the best match."""
    cosines = one.directions.double() @ other.directions.double().t()
    rows, columns = scipy.optimize.linear_sum_assignment(cosines.numpy(), maximize=True)
    return Likeness(
        largest=float(cosines.max(0).values.mean() + cosines.max(1).values.mean()) / 2,
        matched=float(cosines[rows, columns].mean()),
    )


@torch.no_grad()
def scores(dictionary: Dictionary, activations: Harvest) -> tuple[float, float, float]:
    """Explained variance, L0 and the share of latents silent on all held-out tokens."""
    x = activations.select("heldout").activations().float()
    codes = dictionary.encode(x)
    left = (x - dictionary.decode(codes)).square().sum() / (x - x.mean(0)).square().sum()
    fired = codes.indices[codes.values != 0].unique()
    return 1 - float(left), float(codes.l0().float().mean()), 1 - len(fired) / codes.width


def recipes_of(options: argparse.Namespace) -> dict[str, Recipe]:
    """What is compared, by its name in the table."""
    sizes = {"width": options.width, "k": options.k}
    archetypal: dict[str, Recipe] = {
        f"archetypal, relaxation {relaxation:g}": Archetypal(
            **sizes, candidates=options.candidates, relaxation=relaxation
        )
        for relaxation in RELAXATIONS
    }
    return {
        "TopK": TopK(**sizes),
        "matching pursuit": MatchingPursuit(**sizes),
        **archetypal,
    }


def fitted(
    recipes: Sequence[Recipe], activations: Harvest, seed: int, options: argparse.Namespace
) -> list[Dictionary]:
    """The recipes on one pass; with `steps` 1 and no learning rate to speak of, their start."""
    return fit(
        recipes,
        activations,
        tokens=options.steps * options.batch,
        batch_tokens=options.batch,
        seed=[seed] * len(recipes),
        learning_rate=options.rate,
        progress=SILENT,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(REPORTED_SEEDS))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=80_000, help="harvested")
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    activations = harvest(
        load_subject("bundled"),
        stdlib_corpus(),
        sites="resid_post.2",
        tokens=options.tokens,
        progress=SILENT,
    )
    recipes = recipes_of(options)
    runs = {seed: fitted([*recipes.values()], activations, seed, options) for seed in options.seeds}
    at_start = argparse.Namespace(**{**vars(options), "steps": 1, "rate": 1e-12})
    starts = [
        fitted([recipes["archetypal, relaxation 0"]], activations, seed, at_start)[0]
        for seed in options.seeds
    ]
    print("| decoder | explained | L0 | silent | largest cosine | matched cosine |")
    print("|---|---|---|---|---|---|")
    table = {name: [runs[s][place] for s in runs] for place, name in enumerate(recipes)}
    for name, dictionaries in {**table, "archetypal, at the start": starts}.items():
        found = [scores(dictionary, activations) for dictionary in dictionaries]
        pairs = [likeness(a, b) for a, b in itertools.combinations(dictionaries, 2)]
        columns = [
            *(statistics.mean(column) for column in zip(*found, strict=True)),
            statistics.mean(pair.largest for pair in pairs),
            statistics.mean(pair.matched for pair in pairs),
        ]
        print(f"| {name} | {' | '.join(f'{column:.3f}' for column in columns)} |", flush=True)


if __name__ == "__main__":
    main()
