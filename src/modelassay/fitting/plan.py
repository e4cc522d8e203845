"""What a run is asked to do, with every default filled in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.decompositions.dictionary import Recipe
from modelassay.fitting.options import USUAL, OptimizerName, TrainingOptions
from modelassay.fitting.schedules import Schedule
from modelassay.subjects.site import Site

LONG_RUN_STEPS = 100_000
"""Steps from which on the literature's learning rate is used as it is."""
LARGEST_BOOST = 10.0
"""The most by which a short run's rate exceeds it (ours)."""


def default_learning_rate(width: int, steps: int, optimizer: OptimizerName = "adam") -> float:
    """The learning rate of an optimiser for a dictionary of some width and a run of some length.

    `2e-4 / sqrt(width / 2**14) * clamp(sqrt(100,000 / steps), 1, 10)`. The first two factors are
    the literature's, for runs of some 10^5 steps. Short runs end long before such a rate has
    taken them anywhere, so theirs is larger (ours). Measured on the bundled model, TopK of width
    1,024 and k=16 in 1,000 steps: held-out explained variance .853 at the literature's rate,
    .918 at ten times it and .922 at twenty times it, where 2.5 % of the latents fall silent
    (chosen on one seed; .854 and .919 on another).

    Reference:
        Gao et al. 2024, appendix A.3, as dictionary_learning and sparsify state it.
    """
    boost = math.sqrt(LONG_RUN_STEPS / steps)
    adam = 2e-4 / math.sqrt(width / 2**14) * min(max(boost, 1.0), LARGEST_BOOST)
    return _RATE_AS_ADAMS[optimizer] * adam


_RATE_AS_ADAMS: dict[OptimizerName, float] = {"adam": 1.0, "signum": 0.2, "muon": 1.5}
"""Ours, from a grid on two seeds of the bundled model (`benchmarks/optimizers.py choose`): where
explained variance is within two points of the best one and few latents fall silent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Which dictionaries are trained, on what, for how long."""

    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    """Of each recipe's random start; the first also sets the order of the data."""
    learning_rates: tuple[float, ...]
    """Of each recipe, at the plateau."""
    sites: tuple[Site, ...]
    """Each recipe makes a dictionary of each of them."""
    tokens: int
    """Seen in training, repeats counted."""
    batch_tokens: int
    """Tokens of a step."""
    options: TrainingOptions = USUAL
    """How they are trained."""

    def __post_init__(self) -> None:
        if not self.recipes:
            raise ValueRangeError("recipes must hold at least one recipe; got none. Pass TopK(…).")
        _require_one_each("seed", self.seeds, len(self.recipes))
        _require_one_each("learning_rate", self.learning_rates, len(self.recipes))
        for rate in self.learning_rates:
            if not (math.isfinite(rate) and rate > 0):
                raise ValueRangeError(
                    f"learning_rate must be finite and above 0; got {rate}. Use about 1e-3."
                )
        if self.batch_tokens < 1 or self.tokens < self.batch_tokens:
            raise TooFewTokensError(
                f"Training must see at least one batch of {self.batch_tokens} tokens; got "
                f"tokens={self.tokens}. Train on more tokens or lower batch_tokens."
            )

    @staticmethod
    def of(
        recipes: Sequence[Recipe],
        *,
        site: Site | Sequence[Site],
        tokens: int,
        batch_tokens: int,
        learning_rate: float | Sequence[float] | None,
        seed: int | Sequence[int],
        options: TrainingOptions = USUAL,
    ) -> "Plan":
        """Fill in what is the same for all recipes, and the defaults."""
        steps = max(1, tokens // max(1, batch_tokens))
        return Plan(
            recipes=tuple(recipes),
            seeds=(seed,) * len(recipes) if isinstance(seed, int) else tuple(seed),
            learning_rates=_rates(recipes, learning_rate, steps, options.optimizer),
            sites=(site,) if isinstance(site, Site) else tuple(site),
            tokens=tokens,
            batch_tokens=batch_tokens,
            options=options,
        )

    @property
    def schedule(self) -> Schedule:
        """The schedule of the run; tokens that fill no batch are not seen."""
        return Schedule.of(self.tokens // self.batch_tokens, self.options)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary for checkpoints and provenance."""
        return {
            "sites": [str(site) for site in self.sites],
            "recipes": [recipe.as_json() for recipe in self.recipes],
            "seeds": list(self.seeds),
            "learning_rates": list(self.learning_rates),
            "tokens": self.tokens,
            "batch_tokens": self.batch_tokens,
            "options": self.options.as_json(),
        }


def _rates(
    recipes: Sequence[Recipe],
    rate: float | Sequence[float] | None,
    steps: int,
    optimizer: OptimizerName,
) -> tuple[float, ...]:
    """The learning rate of each recipe."""
    if rate is None:
        return tuple(default_learning_rate(recipe.width, steps, optimizer) for recipe in recipes)
    return tuple(rate) if isinstance(rate, Sequence) else (rate,) * len(recipes)


def _require_one_each(name: str, values: Sequence[object], n_recipes: int) -> None:
    if len(values) != n_recipes:
        raise ValueRangeError(
            f"{name} must be one number, or one per recipe ({n_recipes}); got {len(values)} "
            f"{name}s. Pass a list of the recipes' length."
        )
