"""Code lengths: the published table, the code that is meant, and the crossover."""

import math

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds.bits import binary_entropy, code_lengths, crossover

TABLE = {
    (2, 2): (3.245, 4.000, 2.000, 2.000, 2.0, 4.0),
    (4, 4): (5.397, 6.490, 4.868, 4.000, 4.0, 6.0),
    (10, 10): (8.079, 9.380, 8.442, 6.644, 6.6, 8.6),
}


@pytest.mark.parametrize("size", TABLE)
def test_the_table_comes_out(size):
    found = code_lengths(*size)
    expected = TABLE[size]
    assert found.composed == pytest.approx(expected[0], abs=5e-4)
    assert found.product == pytest.approx(expected[1], abs=5e-4)
    assert found.product_with_reference == pytest.approx(expected[2], abs=5e-4)
    assert found.joint == pytest.approx(expected[3], abs=5e-4)
    assert found.composed_index == pytest.approx(expected[4], abs=0.06)
    assert found.product_index == pytest.approx(expected[5], abs=0.06)


def test_a_reference_in_the_bias_turns_the_order_around_except_for_ten_by_ten():
    for n in (2, 4):
        lengths = code_lengths(n, n)
        assert lengths.product_with_reference < lengths.composed < lengths.product
    lengths = code_lengths(10, 10)
    assert lengths.composed < lengths.product_with_reference


def test_no_code_is_shorter_than_the_entropy_of_the_latents_it_sends():
    for n, m in ((2, 3), (5, 4), (12, 7)):
        lengths = code_lengths(n, m)
        shortest = min(lengths.composed, lengths.product, lengths.product_with_reference)
        assert shortest >= lengths.joint - 1e-9


def test_independent_bits_are_the_sum_of_the_latents_measured_entropies():
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    colours = torch.nn.functional.one_hot(pairs[:, 0]).double()
    shapes = torch.nn.functional.one_hot(pairs[:, 1]).double()
    measured = sum(binary_entropy(float(p)) for p in torch.cat([colours, shapes], 1).mean(0))
    assert code_lengths(4, 3).product == pytest.approx(measured)


def test_composed_wins_a_two_part_code_only_above_49_000_inputs():
    found = crossover(10, 10, d=50, decoder_bits=16)
    assert found == pytest.approx(49_000, abs=500)
    lengths = code_lengths(10, 10)
    for inputs, wins in ((0.99 * found, False), (1.01 * found, True)):
        composed = inputs * lengths.composed + 100 * 50 * 16
        product = inputs * lengths.product + 20 * 50 * 16
        assert (composed < product) is wins


def test_entropy_has_its_known_values():
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0
    assert binary_entropy(0.5) == 1
    assert math.isclose(binary_entropy(0.2), binary_entropy(0.8))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueRangeError, match=r"between 0 and 1; got 1\.5"):
        binary_entropy(1.5)
    with pytest.raises(ValueRangeError, match="at least 2 colours and 2 shapes; got 1 and 4"):
        code_lengths(1, 4)
