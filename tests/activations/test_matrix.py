"""Row matrices: however the rows are cut and picked, they are those of one tensor."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.activations import matrix as matrix_module
from modelassay.activations.matrix import RowMatrix


@given(st.data())
def test_rows_are_those_of_the_whole(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    n = sum(sizes)
    whole = torch.arange(n * 3.0).reshape(n, 3)
    rows = RowMatrix(parts=whole.split(sizes), mapped=True)
    for _ in range(data.draw(st.integers(0, 2))):
        kept = data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole)))
        chosen = torch.tensor(kept, dtype=torch.bool).nonzero()[:, 0]
        rows, whole = rows.keep(chosen), whole[chosen]
    assert len(rows) == len(whole)
    assert torch.equal(rows.tensor(), whole)
    assert torch.equal(torch.cat([whole[:0], *rows.chunks()]), whole)
    if len(whole):
        picked = torch.tensor(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)))
        assert torch.equal(rows.gather(picked.long()), whole[picked.long()])


def test_one_part_is_handed_out_without_a_copy() -> None:
    whole = torch.ones(5, 2, dtype=torch.bfloat16)
    rows = RowMatrix(parts=(whole,), mapped=False)
    assert rows.tensor().data_ptr() == whole.data_ptr()
    assert (rows.width, rows.dtype, rows.row_bytes) == (2, torch.bfloat16, 4)


def test_chunks_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(matrix_module, "_CHUNK_BYTES", 64)
    rows = RowMatrix(parts=(torch.zeros(21, 2), torch.zeros(3, 2)), mapped=False)
    assert [len(chunk) for chunk in rows.chunks()] == [8, 8, 5, 3]
    kept = rows.keep(torch.arange(0, 24, 2))
    assert [len(chunk) for chunk in kept.chunks()] == [8, 4]
