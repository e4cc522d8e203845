from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.fitting.options import TrainingOptions
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


def test_cosine_falls_from_the_warm_up_to_the_end():
    factor = Schedule(steps=1000, shape="cosine").learning_rate_factor
    assert factor(24) == pytest.approx(0.5)
    assert factor(49) == factor(50) == 1
    assert factor(525) == pytest.approx(0.5)
    assert factor(287) == pytest.approx((1 + 0.5**0.5) / 2, abs=1e-3)
    assert 0 < factor(999) < 1e-5


def test_constant_never_falls_and_linear_may_fall_over_the_whole_run():
    assert Schedule(steps=1000, shape="constant").learning_rate_factor(999) == 1
    falling = Schedule(steps=1000, warmup_share=0.0, decay_share=1.0).learning_rate_factor
    assert [falling(0), falling(250), falling(999)] == pytest.approx([1, 0.75, 0.001])


@given(st.integers(1, 3000), st.sampled_from(["linear", "cosine", "constant"]))
def test_every_shape_stays_in_the_half_open_interval_from_0_to_1(steps: int, shape: Any):
    factor = Schedule(steps=steps, shape=shape).learning_rate_factor
    assert all(0 < factor(step) <= 1 for step in {0, steps // 3, steps // 2, steps - 1})


def test_k_falls_linearly_to_the_final_one_and_stays():
    schedule = Schedule(steps=1000, initial_k=64, k_share=0.1)
    assert [schedule.k(step, 16) for step in (0, 25, 50, 75, 100, 101, 999)] == [
        64,
        52,
        40,
        28,
        16,
        16,
        16,
    ]


def test_k_without_a_schedule_or_a_share_is_the_final_one():
    assert Schedule(steps=10).k(0, 16) == 16
    assert [Schedule(steps=10, initial_k=64, k_share=0.0).k(step, 16) for step in (0, 1)] == [
        64,
        16,
    ]


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 100), st.floats(0, 1))
def test_k_never_leaves_the_interval_between_its_ends(
    steps: int, initial: int, final: int, share: float
):
    schedule = Schedule(steps=steps, initial_k=initial, k_share=share)
    low, high = sorted((initial, final))
    assert all(low <= schedule.k(step, final) <= high for step in range(steps))
    assert schedule.k(0, final) == initial


def test_schedule_takes_over_every_option():
    options = TrainingOptions(
        schedule="cosine",
        warmup_steps=7,
        warmup_share=0.3,
        decay_share=0.4,
        sparsity_share=0.5,
        initial_k=9,
        k_share=0.6,
    )
    made = Schedule.of(50, options)
    assert made == Schedule(
        steps=50,
        shape="cosine",
        warmup_steps=7,
        warmup_share=0.3,
        decay_share=0.4,
        sparsity_share=0.5,
        initial_k=9,
        k_share=0.6,
    )
    assert Schedule.of(50, TrainingOptions()) == Schedule(steps=50)
