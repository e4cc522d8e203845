import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelassay.report.pack import Pack


def opened(pack: Pack, description: list[int | str]) -> np.ndarray:
    """What the page's script does, in numpy."""
    raw = zlib.decompress(base64.b64decode(pack.base64()))
    offset, length, kind = description
    assert offset % 4 == 0
    return np.frombuffer(raw, dtype=f"<{kind}", count=length, offset=offset)


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), max_size=6))
def test_whole_numbers_come_back_exactly(arrays: list[list[int]]) -> None:
    pack = Pack()
    stored = [(pack.counts(np.array(a, dtype=np.int64)), a) for a in arrays]
    for description, array in stored:
        assert opened(pack, description).tolist() == array


@pytest.mark.parametrize(
    ("largest", "kind"), [(255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")]
)
def test_whole_numbers_take_the_narrowest_type(largest: int, kind: str) -> None:
    assert Pack().counts(np.array([0, largest]))[2] == kind


def test_negative_whole_numbers_keep_their_sign() -> None:
    pack = Pack()
    assert opened(pack, pack.counts(np.array([-1, 7]))).tolist() == [-1, 7]


def test_rough_numbers_keep_three_digits_whatever_their_size() -> None:
    for values in ([0.5, 3.25, 0.0], [1e-9, 2.0], [1e8, 1.0], [np.nan, 1.5]):
        pack = Pack()
        array = np.array(values)
        description = pack.rough(array)
        np.testing.assert_allclose(opened(pack, description), array, rtol=1e-3)
    assert Pack().rough(np.array([0.5, 3.25]))[2] == "f2"
    assert Pack().rough(np.array([1e-9]))[2] == "f4"


def test_printed_numbers_keep_single_precision_and_nan() -> None:
    pack = Pack()
    array = np.array([1 / 3, np.nan, 1e-12])
    np.testing.assert_array_equal(opened(pack, pack.exact(array)), array.astype(np.float32))
