"""Geometry of the figures that need no script: what lies where, in the units of the drawing."""

import math
from dataclasses import dataclass
from itertools import accumulate

from modelassay.report.axes import Axis, tick_label
from modelassay.report.parts import Estimate, Histogram, Metric
from modelassay.testbeds.standing import Mean

STRIP_WIDTH = 200.0
STRIP_ROW = 11.0
VERDICT_WIDTH, VERDICT_PAD = 150.0, 8.0
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 320.0, 120.0
_PAD = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """An estimate drawn on a strip."""

    x: float
    low: float
    high: float
    null: float | None
    y: float
    audited: bool
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One metric's estimates above each other on one axis."""

    height: float
    dots: tuple[Dot, ...]


def strip(metric: Metric, columns: tuple[str, ...]) -> Strip:
    """The small picture beside a row of numbers."""
    dots: list[Dot] = []
    for index, (name, estimate) in enumerate(zip(columns, metric.estimates, strict=True)):
        if estimate is None or math.isnan(estimate.value):
            continue
        x = _x(metric.axis, estimate.value)
        # An interval that was not measured is drawn with no length.
        low = x if math.isnan(estimate.low) else _x(metric.axis, estimate.low)
        high = x if math.isnan(estimate.high) else _x(metric.axis, estimate.high)
        y = STRIP_ROW * (index + 0.7)
        null = None if math.isnan(estimate.null) else _x(metric.axis, estimate.null)
        dots.append(Dot(x=x, low=low, high=high, null=null, y=y, audited=index == 0, title=name))
    return Strip(height=STRIP_ROW * (len(columns) + 0.4), dots=tuple(dots))


def numbers_of(estimate: Estimate | None) -> list[float | None]:
    """Value, low, high and null, unrounded, for those who compute with them."""
    if estimate is None:
        return [None] * 4
    numbers = (estimate.value, estimate.low, estimate.high, estimate.null)
    return [None if math.isnan(number) else number for number in numbers]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictDot:
    """A V between the activations' truth on the left and the model's on the right."""

    share: float
    x: float | None
    """None if it is not defined."""
    low: float | None
    """None if the interval is not known."""
    high: float | None


def verdict_dot(v: Mean) -> VerdictDot:
    """Where a V and its interval lie."""

    def across(value: float) -> float | None:
        if math.isnan(value):
            return None
        return round(VERDICT_PAD + value * (VERDICT_WIDTH - 2 * VERDICT_PAD), 2)

    share = 0.5 if math.isnan(v.value) else v.value
    return VerdictDot(share=share, x=across(v.value), low=across(v.low), high=across(v.high))


def numbers_of_mean(mean: Mean) -> list[float | None]:
    """Value and interval, unrounded, for those who compute with them."""
    return [None if math.isnan(n) else n for n in (mean.value, mean.low, mean.high)]


def _x(axis: Axis, value: float) -> float:
    return round(_PAD + axis.position(value) * (STRIP_WIDTH - 2 * _PAD), 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One class's part of one bin."""

    key: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """A histogram ready to draw."""

    blocks: tuple[Block, ...]
    outline: str
    """SVG path of the null; empty if there is none."""
    threshold: float | None
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[tuple[str, ...], ...]
    """The same numbers: bin, one count per class, null."""
    tallest: int


def bars(histogram: Histogram, keys: tuple[str, ...]) -> Bars:
    """Stacked bars, the null's outline, and the numbers behind them."""
    axis, bins = histogram.axis, len(next(iter(histogram.counts.values())))
    stacks = [[histogram.counts[key][b] for key in keys] for b in range(bins)]
    tallest = max(1, *map(sum, stacks))
    unit, width = HISTOGRAM_HEIGHT / tallest, HISTOGRAM_WIDTH / bins
    blocks: list[Block] = []
    rows: list[tuple[str, ...]] = []
    for b, stack in enumerate(stacks):
        span = f"{tick_label(axis.value(b / bins))} … {tick_label(axis.value((b + 1) / bins))}"
        tops = accumulate(stack)
        for key, count, top in zip(keys, stack, tops, strict=True):
            if count:
                blocks.append(
                    Block(
                        key=key,
                        x=round(b * width + 0.4, 2),
                        y=round(HISTOGRAM_HEIGHT - top * unit, 2),
                        width=round(width - 0.8, 2),
                        height=round(count * unit, 2),
                        title=f"{span}: {count:,} {key}",
                    )
                )
        null = (f"{histogram.null_counts[b]:,}",) if histogram.null_counts else ("–",)
        rows.append((span, *(f"{c:,}" for c in stack), *null))
    threshold = histogram.threshold
    return Bars(
        blocks=tuple(blocks),
        outline=_outline(histogram.null_counts, unit, width),
        threshold=None if threshold is None else axis.position(threshold) * HISTOGRAM_WIDTH,
        ticks=tuple((axis.position(t) * HISTOGRAM_WIDTH, tick_label(t)) for t in axis.ticks()),
        rows=tuple(rows),
        tallest=tallest,
    )


def _outline(counts: tuple[int, ...], unit: float, width: float) -> str:
    if not counts:
        return ""
    steps = [f"M0 {HISTOGRAM_HEIGHT:g}"]
    for index, count in enumerate(counts):
        # A null is often all in one bin: it may leave the frame rather than flatten the latents.
        height = min(count * unit, HISTOGRAM_HEIGHT + 8)
        steps.append(f"V{HISTOGRAM_HEIGHT - height:.1f}H{(index + 1) * width:.1f}")
    return "".join(steps) + f"V{HISTOGRAM_HEIGHT:g}"
