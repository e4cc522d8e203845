import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import mannwhitneyu

from modelassay.core.errors import TooFewTokensError
from modelassay.evidence.auroc import Auroc, auroc


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=12, max_size=40), split=st.integers(1, 11))
def test_it_is_the_mann_whitney_statistic(values: list[int], split: int) -> None:
    numbers = torch.tensor(values, dtype=torch.float32)
    positive = torch.arange(len(values)) < split
    found = auroc(numbers, positive, torch.arange(len(values)), seeded())
    statistic = mannwhitneyu(numbers[:split], numbers[split:]).statistic
    assert found.value == pytest.approx(statistic / (split * (len(values) - split)))
    assert (found.n_positive, found.n_negative) == (split, len(values) - split)


def test_what_was_not_measured_counts_as_a_coin_toss() -> None:
    values = torch.tensor([2.0, torch.nan, 0.0, 1.0])
    positive = torch.tensor([True, True, False, False])
    found = auroc(values, positive, torch.arange(4), seeded())
    assert found.value == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    assert found.measured == 0.75


def test_infinite_values_of_one_sign_tie() -> None:
    values = torch.tensor([torch.inf, torch.inf])
    assert auroc(values, torch.tensor([True, False]), torch.arange(2), seeded()).value == 0.5


def test_paired_items_with_equal_values_are_at_chance_in_every_resample() -> None:
    numbers = torch.randn(20, generator=seeded())
    values, cluster = numbers.repeat(2), torch.arange(20).repeat(2)
    first = torch.rand(20, generator=seeded()) < 0.5
    found = auroc(values, torch.cat([first, ~first]), cluster, seeded())
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_interval_is_wider_for_fewer_clusters_and_absent_for_four() -> None:
    values = torch.randn(200, generator=seeded())
    positive = torch.arange(200) % 2 == 0
    values[positive] += 0.8

    def found(clusters: int) -> Auroc:
        return auroc(values, positive, torch.arange(200) % clusters, seeded())

    assert found(200).low < found(200).value < found(200).high
    assert found(4).low != found(4).low  # NaN


def test_one_class_alone_has_no_area() -> None:
    with pytest.raises(TooFewTokensError, match="got 3 positive and 0"):
        auroc(torch.zeros(3), torch.ones(3, dtype=torch.bool), torch.arange(3), seeded())
