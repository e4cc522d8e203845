import hypothesis.strategies as st
import torch
from hypothesis import given

from modelassay.testbeds.inner_products import column_sums, cross


def matrix(rows: int, columns: int, density: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    return values * (torch.rand(rows, columns, generator=generator) < density)


densities = st.sampled_from([0.0, 0.01, 0.5, 1.0])


@given(rows=st.integers(1, 200), one=densities, other=densities, seed=st.integers(0, 99))
def test_the_product_is_that_of_double_precision_however_empty_the_matrices(
    rows: int, one: float, other: float, seed: int
) -> None:
    left, right = matrix(rows, 7, one, seed), matrix(rows, 5, other, seed + 1)
    assert torch.allclose(cross(left, right), left.double().T @ right.double(), atol=1e-12)


@given(density=densities, seed=st.integers(0, 99))
def test_sums_of_columns_and_of_their_squares(density: float, seed: int) -> None:
    values = matrix(90, 6, density, seed)
    sums, squares = column_sums(values)
    assert torch.allclose(sums, values.double().sum(0))
    assert torch.allclose(squares, values.double().square().sum(0))


def test_more_rows_than_a_chunk_holds_and_truth_values() -> None:
    values = matrix(20_000, 3, 0.5, 0)
    on = values > 0
    assert torch.allclose(cross(on, values), on.double().T @ values.double())
    assert torch.allclose(column_sums(values)[0], values.double().sum(0))
