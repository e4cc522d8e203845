"""What a method reached on a testbed, with intervals over constructions.

Every quantity is averaged over the arms and fits of one construction. Over the seeds of the
constructions, the mean has the 95 % interval of Student's t; it is clipped to what the quantity
can be, and unknown (NaN) with a single seed. With several fits, the spread between fits of one
construction is given apart: the interval is about other constructions, not about other fits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from modelassay.testbeds.league_storage import Row
from modelassay.testbeds.scores import Scores, beyond_chance

_CONFIDENCE = 0.95
_DIGITS = 5  # rows keep six significant digits: what is chance exactly must not miss it by rounding

Interval = tuple[float, float]
Take = Callable[[Row], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A mean over the seeds of the constructions; NaN where it was not measured."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    between_fits: float
    """Standard deviation between fits of one construction; NaN with one fit."""
    n: int
    """Constructions on which it is defined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One method on one testbed."""

    testbed: str
    method: str
    v: Mean
    """Over the rows that found something."""
    match_model: Mean
    match_activations: Mean
    s_graph: Mean
    pad_beyond_chance: Mean
    """PAD~."""
    found: str
    """By the mean matches: "model", "activations", "both", "neither" or "partly"."""
    own: dict[str, Mean]
    seconds: float
    """For one construction: fits and scores in all arms."""


def standing_of(rows: Sequence[Row]) -> Standing:
    """The standing behind the rows of one method on one testbed."""
    arms = len({row.arm for row in rows})
    chance = -1 / (arms - 1) if arms > 1 else math.nan

    def beyond(pad: float) -> float:
        return round(beyond_chance(pad, arms), _DIGITS) + 0.0

    model = mean_over_seeds(rows, lambda row: row.match_model, (0.0, 1.0))
    activations = mean_over_seeds(rows, lambda row: row.match_activations, (0.0, 1.0))
    found = Scores(
        match_model=model.value, match_activations=activations.value, s_graph=math.nan
    ).found
    names = dict.fromkeys(name for row in rows for name in row.own)
    return Standing(
        testbed=rows[0].testbed,
        method=rows[0].method,
        v=mean_over_seeds(rows, _v_where_found, (0.0, 1.0)),
        match_model=model,
        match_activations=activations,
        s_graph=mean_over_seeds(rows, lambda row: row.s_graph, (0.0, 1.0)),
        pad_beyond_chance=mean_over_seeds(rows, lambda row: row.pad, (chance, 1.0), beyond),
        found=found,
        own={name: mean_over_seeds(rows, _own(name)) for name in names},
        seconds=sum(row.seconds for row in rows) / len({row.seed for row in rows}),
    )


def _own(name: str) -> Take:
    return lambda row: row.own.get(name, math.nan)


def _v_where_found(row: Row) -> float:
    """V of a row that found something: of two matches near nothing the ratio says nothing."""
    return math.nan if row.found == "neither" else row.v


def mean_over_seeds(
    rows: Sequence[Row],
    take: Take,
    bounds: Interval = (-math.inf, math.inf),
    transform: Callable[[float], float] = lambda value: value,
) -> Mean:
    """The mean of a quantity over seeds, after averaging over the arms and fits of each.

    Args:
        rows: of one method on one testbed.
        take: the quantity; rows where it is NaN are left out.
        bounds: what it can be.
        transform: is applied to the mean of each seed.
    """
    seeds = dict.fromkeys(row.seed for row in rows)
    of_seed = [[row for row in rows if row.seed == seed] for seed in seeds]
    means = [transform(_mean([take(row) for row in these])) for these in of_seed]
    means = [value for value in means if math.isfinite(value)]
    low, high = student_interval(means, bounds)
    return Mean(
        value=_mean(means),
        low=low,
        high=high,
        between_fits=_between_fits(of_seed, take, transform),
        n=len(means),
    )


def student_interval(values: Sequence[float], bounds: Interval) -> Interval:
    """95 % interval of the mean of independent values; NaN for fewer than two."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 0.5 + _CONFIDENCE / 2)) * _deviation(values) / math.sqrt(n)
    return max(bounds[0], _mean(values) - half), min(bounds[1], _mean(values) + half)


def _between_fits(
    of_seed: Sequence[Sequence[Row]], take: Take, transform: Callable[[float], float]
) -> float:
    """Root mean square, over constructions, of the standard deviation between their fits."""
    variances: list[float] = []
    for rows in of_seed:
        fits = dict.fromkeys(row.fit for row in rows)
        of_fit = [transform(_mean([take(r) for r in rows if r.fit == fit])) for fit in fits]
        of_fit = [value for value in of_fit if math.isfinite(value)]
        if len(of_fit) > 1:
            variances.append(_deviation(of_fit) ** 2)
    return math.sqrt(_mean(variances)) if variances else math.nan


def _mean(values: Sequence[float]) -> float:
    """Of the values that are defined; NaN if none is."""
    defined = [value for value in values if math.isfinite(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _deviation(values: Sequence[float]) -> float:
    middle = _mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))
