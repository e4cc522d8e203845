import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.fitting.schedules import Schedule


def test_long_run_warms_up_in_1000_steps_and_decays_in_the_last_fifth():
    schedule = Schedule(steps=100_000)
    factor = schedule.learning_rate_factor
    assert factor(0) == pytest.approx(1 / 1000)
    assert factor(499) == pytest.approx(0.5)
    assert factor(999) == factor(50_000) == factor(80_000) == 1
    assert factor(90_000) == pytest.approx(0.5)
    assert factor(99_999) == pytest.approx(1 / 20_000)


def test_short_run_warms_up_in_a_twentieth():
    factor = Schedule(steps=400).learning_rate_factor
    assert factor(9) == pytest.approx(0.5)
    assert factor(19) == factor(200) == 1


@given(st.integers(1, 3000))
def test_every_factor_is_in_the_half_open_interval_from_0_to_1(steps: int):
    schedule = Schedule(steps=steps)
    for step in {0, steps // 3, steps // 2, steps - 1}:
        assert 0 < schedule.learning_rate_factor(step) <= 1
        assert 0 < schedule.sparsity_factor(step) <= 1


@given(st.integers(50, 3000))
def test_rate_rises_then_falls_and_sparsity_never_falls(steps: int):
    schedule = Schedule(steps=steps)
    rates = [schedule.learning_rate_factor(step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    sparsity = [schedule.sparsity_factor(step) for step in range(steps)]
    assert sparsity == sorted(sparsity)
    assert sparsity[-1] == 1


def test_run_without_steps_is_refused():
    with pytest.raises(ValueRangeError, match="at least one step; got 0"):
        Schedule(steps=0)
