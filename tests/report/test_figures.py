import math
import re

import pytest

from modelassay.report.axes import Axis
from modelassay.report.figures import (
    HISTOGRAM_HEIGHT,
    HISTOGRAM_WIDTH,
    STRIP_WIDTH,
    bars,
    numbers_of,
    strip,
)
from modelassay.report.parts import Estimate, Histogram, Metric

KEYS = ("model", "dead")


def histogram(*, null_counts: tuple[int, ...] = (1, 2, 0, 90)) -> Histogram:
    return Histogram(
        title="Written",
        unit="share",
        axis=Axis(low=0.0, high=4.0),
        counts={"model": (1, 0, 3, 2), "dead": (1, 0, 1, 0)},
        null_counts=null_counts,
        threshold=1.0,
        note="",
    )


def test_blocks_stack_and_their_area_is_the_count() -> None:
    drawing = bars(histogram(), KEYS)
    unit = HISTOGRAM_HEIGHT / 4  # the tallest stack holds four
    assert drawing.tallest == 4
    third = [b for b in drawing.blocks if b.x == pytest.approx(2 * HISTOGRAM_WIDTH / 4 + 0.4)]
    assert [(b.key, b.height) for b in third] == [("model", 3 * unit), ("dead", unit)]
    assert third[0].y == pytest.approx(HISTOGRAM_HEIGHT - 3 * unit)
    assert third[1].y + third[1].height == pytest.approx(third[0].y)
    assert len(drawing.blocks) == 5  # empty ones are not drawn


def test_the_null_may_leave_the_frame_but_not_flatten_the_bars() -> None:
    heights = [float(y) for y in re.findall(r"V(-?[\d.]+)", bars(histogram(), KEYS).outline)]
    assert heights[0] == HISTOGRAM_HEIGHT * 3 / 4
    assert min(heights) == -8
    assert bars(histogram(null_counts=()), KEYS).outline == ""


def test_the_numbers_behind_the_bars() -> None:
    rows = bars(histogram(), KEYS).rows
    assert rows[0] == ("0 … 1", "1", "1", "1")
    assert rows[3] == ("3 … 4", "2", "0", "90")
    assert bars(histogram(null_counts=()), KEYS).rows[0][-1] == "–"


def test_threshold_and_ticks_lie_where_they_belong() -> None:
    drawing = bars(histogram(), KEYS)
    assert drawing.threshold == HISTOGRAM_WIDTH / 4
    assert drawing.ticks[0] == (0.0, "0")
    assert drawing.ticks[-1] == (HISTOGRAM_WIDTH, "4")


def test_a_strip_shows_what_was_measured() -> None:
    metric = Metric(
        title="EV", unit="share", better="higher", definition="",
        null_description="", n=10, axis=Axis(low=0.0, high=1.0),
        estimates=(
            Estimate(value=0.5, low=0.25, high=math.nan, null=0.0),
            None,
            Estimate(value=math.nan, low=math.nan, high=math.nan, null=0.0),
        ),
    )  # fmt: skip
    drawing = strip(metric, ("own", "random", "pca"))
    (dot,) = drawing.dots
    assert (dot.title, dot.audited, dot.x) == ("own", True, STRIP_WIDTH / 2)
    assert dot.low < dot.x == dot.high
    assert numbers_of(metric.estimates[0]) == [0.5, 0.25, None, 0.0]
    assert numbers_of(None) == [None] * 4
    assert dot.null is not None
    assert dot.null < dot.low
