import pytest
import torch

from modelassay.activations.statistics import Moments
from modelassay.core.errors import NonFiniteError, ValueRangeError
from modelassay.fitting.normalisation import input_scale


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_scaled_activations_have_a_mean_norm_of_the_root_of_the_width(unit: float):
    x = unit * torch.randn(500, 9, generator=torch.Generator().manual_seed(0)) + unit
    scale = input_scale(Moments.of(x))
    assert float((scale * x).norm(dim=1).mean()) == pytest.approx(3, rel=1e-5)


def test_activations_that_are_all_zero_are_refused():
    with pytest.raises(ValueRangeError, match="mean norm of 0"):
        input_scale(Moments.of(torch.zeros(5, 3)))


def test_nan_is_refused():
    with pytest.raises(NonFiniteError, match="must be finite; got a mean norm of nan"):
        input_scale(Moments.of(torch.full((5, 3), torch.nan)))
