import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelassay.report.axes import Axis, axis_over, bin_counts, number, percent, tick_label

finite = st.floats(-1e9, 1e9, allow_nan=False)
SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def read_back(text: str) -> float:
    text = text.replace("−", "-").replace(",", "")
    match = re.fullmatch(r"(-?[\d.]+)×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    return float(f"{match[1]}e{match[2].translate(SUPERSCRIPT)}") if match else float(text)


@given(finite)
def test_a_number_is_written_to_three_significant_digits(value: float) -> None:
    read = read_back(number(value))
    assert read == pytest.approx(value, rel=0.0051, abs=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1234.5, "1,234"),
        (-0.5, "−0.500"),
        (1.25e-5, "1.25×10⁻⁵"),
        (math.nan, "–"),
        (None, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_as_people_write_them(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (1e-4, "10⁻⁴"), (2e-4, "2×10⁻⁴"), (30.0, "30"), (1500.0, "1,500")],
)
def test_tick_labels_are_short(value: float, text: str) -> None:
    assert tick_label(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (0.0004, "<0.1%"), (0.045, "4.5%"), (0.27, "27%"), (1.0, "100%")],
)
def test_percentages(share: float, text: str) -> None:
    assert percent(share) == text


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0, 1))
def test_position_is_the_inverse_of_value_and_stays_inside(values: list[float], at: float) -> None:
    axis = axis_over(np.array(values))
    assert axis.position(axis.value(at)) == pytest.approx(at, abs=1e-6)
    assert all(0 <= axis.position(v) <= 1 for v in values)
    assert axis.position(-math.inf) == 0
    assert axis.position(math.inf) == 1


@given(st.lists(finite, min_size=1, max_size=30))
def test_ticks_lie_on_the_axis_and_rise(values: list[float]) -> None:
    axis = axis_over(np.array(values))
    ticks = axis.ticks()
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    assert list(ticks) == sorted(set(ticks))


def test_what_must_be_shown_is_shown() -> None:
    axis = axis_over(np.array([0.2, 0.3]), include=(0.7, math.nan))
    assert axis.low < 0.2
    assert axis.high > 0.7


def test_a_positive_quantity_over_many_decades_gets_a_logarithmic_axis() -> None:
    values = np.logspace(-6, 0, 100)
    axis = axis_over(values)
    assert axis.log
    assert axis.position(1e-3) == pytest.approx(0.5, abs=0.05)
    assert axis.ticks(10) == tuple(float(f"1e{e}") for e in range(-6, 1))
    assert not axis_over(-values).log
    assert not axis_over(np.linspace(1, 2, 10)).log


def test_one_wild_value_does_not_stretch_the_axis() -> None:
    values = np.concatenate([np.linspace(-1, 1, 999), [1e6]])
    assert axis_over(values).high < 1e4


def test_no_values_still_make_an_axis() -> None:
    assert axis_over(np.array([math.nan])) == Axis(low=0.0, high=1.0)


@given(
    st.lists(st.one_of(finite, st.just(math.nan)), max_size=40), st.integers(1, 12)
)  # fmt: skip
def test_bins_count_every_finite_value_once(values: list[float], bins: int) -> None:
    axis = Axis(low=-10.0, high=10.0)
    expected = [0] * bins
    for value in values:
        if math.isfinite(value):
            inside = min(max(value, -10.0), 10.0)
            expected[min(int((inside + 10) / 20 * bins), bins - 1)] += 1
    assert list(bin_counts(axis, np.array(values), bins)) == expected
