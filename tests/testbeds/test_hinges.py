import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.testbeds.hinges import TARGETS, Hinges, grid, one_sided, two_sided


@pytest.mark.parametrize("hinges", [one_sided(), two_sided()])
def test_the_error_of_x_squared_is_that_of_optimal_pieces(hinges: Hinges) -> None:
    # The best piecewise linear approximation of x² on tiles of length h: MSE h⁴/180.
    read_out = hinges.read_out(TARGETS["square"])
    assert read_out.mean_squared_error == pytest.approx(0.2**4 / 180, rel=1e-3)
    assert read_out.largest_error == pytest.approx(0.2**2 / 6, rel=1e-3)
    assert read_out.fvu == pytest.approx(1e-4, rel=1e-3)


def test_the_modulus_is_made_exactly() -> None:
    read_out = two_sided().read_out(TARGETS["modulus"])
    assert read_out.largest_error < 1e-12
    assert read_out.weights[[0, 5]].tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("target", TARGETS)
def test_a_read_out_is_what_it_says(target: str) -> None:
    hinges, x = two_sided(), grid()
    read_out = hinges.read_out(TARGETS[target])
    error = hinges(x) @ read_out.weights + read_out.bias - TARGETS[target](x)
    assert float(error.square().mean()) == pytest.approx(read_out.mean_squared_error, abs=1e-12)
    assert float(error.mean()) == pytest.approx(0, abs=1e-9)  # the constant is fitted
    assert (hinges(x).T @ error).abs().max() < 1e-6 * len(x)  # the residual is orthogonal


def test_even_targets_have_even_weights_and_odd_ones_odd() -> None:
    hinges = two_sided()
    for target, sign in {"square": 1, "modulus": 1, "cube": -1, "sine": -1}.items():
        weights = hinges.read_out(TARGETS[target]).weights
        assert torch.allclose(weights[:5], sign * weights[5:], atol=1e-8)


def test_dependent_hinges_are_refused() -> None:
    twice = Hinges(signs=torch.ones(2).double(), knots=torch.zeros(2).double())
    with pytest.raises(ValueRangeError, match=r"linearly independent on .* got rank 2 of 3"):
        twice.read_out(TARGETS["square"])


def test_an_odd_number_has_no_two_sides() -> None:
    with pytest.raises(ValueRangeError, match="count must be even; got 7"):
        two_sided(7)


def test_every_hinge_has_a_knot() -> None:
    with pytest.raises(ShapeError, match="one sign and one knot each"):
        Hinges(signs=torch.ones(3).double(), knots=torch.zeros(2).double())
