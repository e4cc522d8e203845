import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.fitting.calibration import calibrate_threshold


def identity(x: torch.Tensor) -> torch.Tensor:
    return x


@given(st.integers(0, 2**20), st.integers(1, 40), st.integers(1, 5))
def test_exactly_k_per_token_lie_above_the_threshold(seed: int, tokens: int, k: int):
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(tokens, 64, generator=generator)
    threshold = calibrate_threshold(identity, pre, k)
    assert (pre > threshold).sum() == k * tokens
    by_sorting = pre.flatten().sort(descending=True).values
    assert by_sorting[k * tokens] <= threshold < by_sorting[k * tokens - 1]


def test_many_chunks_give_the_same_as_one():
    pre = torch.randn(5000, 20, generator=torch.Generator().manual_seed(0))
    threshold = calibrate_threshold(identity, pre, 3)
    assert (pre > threshold).sum() == 15_000


def test_threshold_follows_the_scale_of_the_values():
    pre = torch.randn(100, 30, generator=torch.Generator().manual_seed(1))
    small, large = (calibrate_threshold(identity, pre * s, 2) for s in (1e-6, 1e6))
    assert large / small == pytest.approx(1e12, rel=1e-5)


def test_too_few_positive_values_give_zero():
    pre = -torch.ones(10, 8)
    pre[:, 0] = 1
    assert calibrate_threshold(identity, pre, 2) == 0


def test_no_heldout_tokens_are_refused():
    with pytest.raises(TooFewTokensError, match="held-out tokens; got 0"):
        calibrate_threshold(identity, torch.zeros(0, 4), 2)


def test_k_of_zero_is_refused():
    with pytest.raises(ValueRangeError, match="above 0; got 0"):
        calibrate_threshold(identity, torch.zeros(3, 4), 0)
