import math

import pytest
import scipy.stats

from modelassay.testbeds.league_storage import Row
from modelassay.testbeds.standing import mean_over_seeds, standing_of, student_interval


def row(seed: int, arm: str = "a", **scores: float) -> Row:
    values = {"v": 0.5, "match_model": 0.5, "match_activations": 0.5, "s_graph": 0.5, "pad": 0.5}
    own = {"own": scores.pop("own", 1.0)}
    return Row(
        testbed="t", arm=arm, method="m", seed=seed, fit=int(scores.pop("fit", 0)), found="partly",
        own=own, seconds=1.0, **(values | scores),
    )  # fmt: skip


def test_the_interval_is_students() -> None:
    values = [0.2, 0.5, 0.35, 0.41]
    error = scipy.stats.sem(values)
    expected = scipy.stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=error)
    assert student_interval(values, (-math.inf, math.inf)) == pytest.approx(expected)
    assert student_interval([0.0, 1.0], (0.0, 1.0)) == (0.0, 1.0)
    assert all(map(math.isnan, student_interval([0.3], (0.0, 1.0))))


def test_arms_and_fits_are_averaged_before_seeds() -> None:
    rows = [row(0, v=0.0), row(0, "b", v=0.4), row(1, v=0.6), row(1, "b", v=math.nan)]
    mean = mean_over_seeds(rows, lambda r: r.v, (0.0, 1.0))
    assert mean.value == pytest.approx(0.4)  # of 0.2 and 0.6
    assert mean.n == 2
    assert (mean.low, mean.high) == (0.0, 1.0)  # clipped: two seeds say little


def test_what_is_never_defined_is_not_a_number() -> None:
    mean = mean_over_seeds([row(0, v=math.nan)], lambda r: r.v)
    assert mean.n == 0
    assert math.isnan(mean.value)


def test_the_spread_between_fits_is_within_constructions() -> None:
    rows = [row(s, fit=f, v=0.1 * f + 0.3 * s) for s in (0, 1) for f in (0, 1)]
    assert mean_over_seeds(rows, lambda r: r.v).between_fits == pytest.approx(0.1 / 2**0.5)
    assert math.isnan(mean_over_seeds(rows[:1], lambda r: r.v).between_fits)


def test_discrimination_beyond_chance_survives_the_rounding_of_what_is_stored() -> None:
    thirds = [row(s, arm, pad=0.333333) for s in (0, 1) for arm in "abc"]
    pad = standing_of(thirds).pad_beyond_chance
    assert (pad.low, pad.value, pad.high) == (0, 0, 0)
    right = [row(s, arm, pad=1.0) for s in (0, 1) for arm in "ab"]
    assert standing_of(right).pad_beyond_chance.value == 1
    alone = standing_of([row(0, pad=math.nan)])
    assert math.isnan(alone.pad_beyond_chance.value)


def test_a_standing_names_what_was_found_by_the_mean_matches() -> None:
    rows = [row(s, match_model=0.9, match_activations=0.1, own=float(s)) for s in (0, 1)]
    standing = standing_of(rows)
    assert standing.found == "model"
    assert standing.own["own"].value == pytest.approx(0.5)
    assert standing.seconds == 1.0
