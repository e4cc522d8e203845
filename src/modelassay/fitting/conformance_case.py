"""What an architecture is checked on: planted features, and what it learns of them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.activations.rows import ActivationRows
from modelassay.activations.statistics import Moments
from modelassay.core.progress import SILENT
from modelassay.core.randomness import derived
from modelassay.decompositions.batch import BatchCodes
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.fitting.fit import fit
from modelassay.fitting.learner import Learner
from modelassay.fitting.learners import learners_of
from modelassay.fitting.logs import LogSink, Measurement
from modelassay.fitting.normalisation import input_scale
from modelassay.fitting.plan import Plan
from modelassay.subjects.site import Site

D = 16
"""Width of the planted activations (ours)."""
_FEATURES, _ACTIVE = 32, 2
_ROWS, _BATCH, _STEPS, _RATE = 4096, 128, 150, 1e-2
_SITE = Site.parse("resid_post.0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Whether a demand is met, and what was seen."""

    passed: bool
    found: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One recipe, planted activations, and the dictionary that was fitted to them."""

    recipe: Recipe
    seed: int
    rows: Float[Tensor, "row d"]
    dictionary: Dictionary
    losses: tuple[float, ...]
    """At each look of the fit."""

    @staticmethod
    def of(recipe: Recipe, seed: int) -> "Case":
        """Fit the recipe to activations of planted features."""
        rows = planted_rows(seed)
        log = _Losses()
        dictionary = short_fit(recipe, rows, seed=seed, steps=_STEPS, log=log)
        return Case(
            recipe=recipe,
            seed=seed,
            rows=rows,
            dictionary=dictionary,
            losses=tuple(log.losses),
        )

    @property
    def heldout(self) -> Float[Tensor, "token d"]:
        """Activations that were not fitted to."""
        return self.rows[_heldout(self.rows)]

    def exact(self) -> Dictionary:
        """A copy of the dictionary in float64, where rounding decides nothing."""
        return copy.deepcopy(self.dictionary).double()

    def untrained(self) -> Dictionary:
        """A dictionary of the recipe at its start."""
        generator = derived(self.seed, "weights")
        return self.recipe.build(D, D, torch.zeros(D), generator, None)

    def learner(self) -> Learner:
        """A learner at the start of a run, as `fit` makes it."""
        moments = rows_as_source(self.rows).select("fit").moments()
        plan = Plan.of(
            [self.recipe],
            site=_SITE,
            tokens=_STEPS * _BATCH,
            batch_tokens=_BATCH,
            learning_rate=_RATE,
            seed=self.seed,
        )
        scale = input_scale(moments)
        rows = self.rows[~_heldout(self.rows)]
        (learner,) = learners_of(
            plan, moments, scale, torch.device("cpu"), draw=lambda n: scale * rows[:n]
        )
        return learner

    def batch(self, step: int) -> Float[Tensor, "token d"]:
        """A batch as a learner sees it."""
        generator = derived(self.seed, "batch", step)
        rows = self.rows[~_heldout(self.rows)]
        chosen = torch.randint(len(rows), (_BATCH,), generator=generator)
        return input_scale(Moments.of(rows)) * rows[chosen]


class _Losses:
    """A log that keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def write(self, rows: Sequence[Measurement]) -> None:
        self.losses += [row.loss for row in rows]

    def close(self) -> None:
        pass


def planted_rows(seed: int) -> Float[Tensor, "row d"]:
    """Sums of a few of more directions than dimensions, about a constant."""
    generator = derived(seed, "planted")
    features = torch.randn(_FEATURES, D, generator=generator)
    features /= features.norm(dim=1, keepdim=True)
    active = torch.rand(_ROWS, _FEATURES, generator=generator).topk(_ACTIVE).indices
    strength = 0.5 + torch.rand(_ROWS, _ACTIVE, generator=generator)
    codes = torch.zeros(_ROWS, _FEATURES).scatter(1, active, strength)
    return codes @ features + 0.3


def rows_as_source(rows: Float[Tensor, "row d"]) -> ActivationRows:
    """The rows, every fourth of them held out."""
    return ActivationRows.of(rows, _SITE, heldout=_heldout(rows), source="planted")


def _heldout(rows: Float[Tensor, "row d"]) -> Bool[Tensor, " row"]:
    return torch.arange(len(rows)) % 4 == 3


def short_fit(
    recipe: Recipe,
    rows: Float[Tensor, "row d"],
    *,
    seed: int,
    steps: int,
    log: LogSink | None = None,
) -> Dictionary:
    """What `fit` makes of the recipe in some steps."""
    return fit(
        recipe,
        rows_as_source(rows),
        tokens=steps * _BATCH,
        batch_tokens=_BATCH,
        learning_rate=_RATE,
        seed=seed,
        log=[log] if log else None,
        progress=SILENT,
    )


def dense(codes: BatchCodes | Codes, width: int) -> Float[Tensor, "token {width}"]:
    """Codes as a matrix."""
    if isinstance(codes, Codes):
        return codes.dense()
    return codes.decode(torch.eye(width, dtype=codes.values.dtype)).detach()


def far_apart(one: Float[Tensor, "..."], other: Float[Tensor, "..."]) -> float:
    """Largest difference of two tensors, as a share of their largest entry."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    largest = max(float(one.abs().max()), float(other.abs().max()), 1e-300)
    return float((one - other).abs().max()) / largest
