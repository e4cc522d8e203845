"""Streaming statistics: against slow definitions, and parts against the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import (
    CorruptFileError,
    ProvenanceError,
    ShapeError,
    ValueRangeError,
)
from modelassay.core.files import write_tensors
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.observe.streaming_statistics import (
    UnitStatistics,
    load_statistics,
    merged,
)
from modelassay.observe.streaming_statistics_sketch import ValueSketch


def random_dense(seed, tokens, units, *, signed=True, rate=0.4):
    g = generator(seed)
    dense = torch.randn(tokens, units, generator=g) * torch.randn(units, generator=g).exp()
    # Rounded, so that values are tied.
    dense = (dense * 8).round() / 8
    dense = dense if signed else dense.relu()
    return dense * (torch.rand(dense.shape, generator=g) < rate)


def statistics_of(dense, first=0, **options):
    rows = torch.arange(first, first + len(dense))
    return UnitStatistics.of(Codes.from_dense(dense), rows, **options)


def same(one, other):
    for name in ("active", "lowest", "highest", "top_values", "top_rows"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.n_tokens == other.n_tokens
    torch.testing.assert_close(one.total, other.total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.squares, other.squares, rtol=1e-12, atol=1e-12)
    assert torch.equal(one.sketch.keys, other.sketch.keys)
    assert torch.equal(one.sketch.counts, other.sketch.counts)
    assert (one.together != other.together).nnz == 0


@given(st.integers(0, 10_000), st.lists(st.integers(0, 30), min_size=1, max_size=5), st.booleans())
def test_parts_in_any_order_merge_to_the_whole(seed, sizes, signed):
    dense = random_dense(seed, sum(sizes), 4, signed=signed)
    options = {"n_top": 3, "pairs": True}
    whole = statistics_of(dense, **options)
    parts, first = [], 0
    for size in sizes:
        parts.append(statistics_of(dense[first : first + size], first, **options))
        first += size
    same(whole, merged(parts))
    same(whole, merged(parts[::-1]))


def test_statistics_are_those_of_the_definitions():
    dense = random_dense(1, 200, 5)
    found = statistics_of(dense, first=1000, n_top=4, pairs=True)
    active = dense != 0
    assert torch.equal(found.active, active.sum(0))
    torch.testing.assert_close(found.rates, active.double().mean(0))
    torch.testing.assert_close(found.means, dense.double().mean(0))
    torch.testing.assert_close(found.deviations, dense.double().std(0, correction=0))
    for unit in range(5):
        column = dense[:, unit]
        rows = sorted(active[:, unit].nonzero()[:, 0].tolist(), key=lambda r: (-column[r], r))[:4]
        assert found.top_rows[unit].tolist() == [1000 + row for row in rows]
        assert found.top_values[unit].tolist() == column[rows].tolist()
        assert found.lowest[unit] == column[active[:, unit]].min()
    together = active.double().T @ active.double()
    np.testing.assert_array_equal(found.together.toarray(), together.numpy())
    pairs, phi = found.correlated_pairs(3)
    expected = np.corrcoef(active.double().T.numpy())
    np.testing.assert_allclose(phi, [expected[i, j] for i, j in pairs.tolist()], atol=1e-12)
    assert float(phi[0]) == pytest.approx(float(np.max(expected - 2 * np.eye(5))))


@given(st.integers(0, 10_000), st.integers(2, 10), st.floats(0, 1))
def test_quantiles_are_the_order_statistic_within_the_bound(seed, bits, share):
    g = generator(seed)
    dense = torch.randn(300, 3, generator=g) * 10.0 ** torch.tensor([-6.0, 0.0, 6.0])
    sketch = ValueSketch.of(Codes.from_dense(dense), bits)
    found = sketch.quantile(share)
    for unit in range(3):
        true = np.quantile(dense[:, unit].numpy(), share, method="inverted_cdf")
        assert abs(found[unit] - true) <= sketch.relative_error * abs(true) * (1 + 1e-5)
    assert sketch.totals().tolist() == [300] * 3


def test_the_sketch_of_all_bits_is_exact():
    dense = random_dense(2, 100, 2, rate=1.0)
    sketch = ValueSketch.of(Codes.from_dense(dense), 23)
    for share in (0.0, 0.01, 0.5, 1.0):
        for unit in range(2):
            values = dense[:, unit][dense[:, unit] != 0].numpy()
            true = np.quantile(values, share, method="inverted_cdf")
            assert float(sketch.quantile(share)[unit]) == pytest.approx(float(true), rel=1e-6)


def test_a_unit_that_is_never_active_has_no_quantile_and_no_top():
    dense = torch.zeros(5, 2)
    dense[3, 0] = 2.0
    found = statistics_of(dense, n_top=2)
    assert found.sketch.quantile(0.5).isnan().tolist() == [False, True]
    assert found.top_rows.tolist() == [[3, -1], [-1, -1]]
    assert found.histogram(4).counts.tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]


def test_the_histogram_is_numpys_but_for_values_near_an_edge():
    dense = random_dense(3, 2000, 2, signed=False, rate=0.9)
    found = statistics_of(dense).histogram(10)
    for unit in range(2):
        values = dense[:, unit][dense[:, unit] != 0].numpy()
        counts, edges = np.histogram(values, 10, (0, values.max()))
        np.testing.assert_allclose(found.edges[unit], edges, rtol=1e-5, atol=1e-6)
        near = sum(int((np.abs(values / e - 1) < 2**-6).sum()) for e in edges[1:-1])
        assert np.abs(counts - found.counts[unit].numpy()).sum() <= 2 * near
        assert int(found.counts[unit].sum()) == len(values)


def test_statistics_come_back_from_disk(tmp_path):
    found = statistics_of(random_dense(4, 50, 3), pairs=True)
    found.save(tmp_path / "statistics.safetensors")
    same(found, load_statistics(tmp_path / "statistics.safetensors"))
    write_tensors(tmp_path / "other.safetensors", {"x": torch.ones(1), "active": torch.ones(1)})
    with pytest.raises(CorruptFileError, match="must hold unit statistics"):
        load_statistics(tmp_path / "other.safetensors")


def test_what_does_not_fit_is_refused():
    one = statistics_of(torch.ones(2, 2))
    with pytest.raises(ProvenanceError, match="same units and kept alike"):
        one + statistics_of(torch.ones(2, 3))
    with pytest.raises(ProvenanceError, match="kept alike"):
        one + statistics_of(torch.ones(2, 2), n_top=3)
    with pytest.raises(ShapeError, match="for each of 2 tokens; got 3"):
        UnitStatistics.of(Codes.from_dense(torch.ones(2, 2)), torch.arange(3))
    with pytest.raises(ShapeError, match="Pairs must have been counted"):
        one.correlated_pairs(1)
    with pytest.raises(ValueRangeError, match="from 0 to 23"):
        ValueSketch.zero(2, 24)
    with pytest.raises(ValueRangeError, match=r"from 0 to 1; got 1\.5"):
        one.sketch.quantile(1.5)
