import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError, WorkerError
from modelassay.fitting.distributed.mesh import (
    divided,
    is_first_process,
    process_mesh,
    started_processes,
)


@given(st.integers(1, 200), st.integers(1, 20))
def test_parts_are_those_of_dtensor_which_chunks(length: int, parts: int):
    chunks = torch.arange(length).chunk(parts)
    if len(chunks) < parts:
        with pytest.raises(ValueRangeError, match="leave every process some"):
            divided(length, parts)
        return
    assert [list(part) for part in divided(length, parts)] == [chunk.tolist() for chunk in chunks]


def test_a_process_that_torchrun_did_not_start_is_told_how(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(WorkerError, match=r"no RANK in the environment\. Run: torchrun"),
        process_mesh(2),
    ):
        pass


def test_processes_that_cannot_be_divided_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for shards in (3, 0, 8):
        with (
            pytest.raises(ValueRangeError, match=f"number of processes, 4; got {shards}"),
            process_mesh(shards),
        ):
            pass


def test_torchruns_variables_say_who_is_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_first_process()
    assert started_processes() == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    assert started_processes() == 2
