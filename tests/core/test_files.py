import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core import files
from modelassay.core.errors import CorruptFileError, OutputExistsError, StorageError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_json_round_trip(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "a.json"
    files.write_json(path, content)
    assert files.read_json(path) == content


def test_nan_and_infinity_become_null(tmp_path):
    values = torch.tensor([1.5, float("nan"), float("inf")])
    files.write_json(tmp_path / "a.json", {"x": values, "y": (1, 2)})
    assert files.read_json(tmp_path / "a.json") == {"x": [1.5, None, None], "y": [1, 2]}
    assert "NaN" not in (tmp_path / "a.json").read_text()


def test_tensors_round_trip_with_views(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"transposed": base.T, "slice": base[:, 1], "same": base, "again": base}
    files.write_tensors(tmp_path / "t.safetensors", tensors)
    loaded = files.read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(loaded["transposed"], base.T)
    assert torch.equal(loaded["slice"], base[:, 1])
    assert torch.equal(loaded["again"], base)


def test_a_truncated_safetensors_file_is_refused_by_name(tmp_path):
    path = tmp_path / "t.safetensors"
    files.write_tensors(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CorruptFileError, match=r"t\.safetensors.*truncated"):
        files.read_tensors(path)


def test_json_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(CorruptFileError, match="must hold a JSON object; got list"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(CorruptFileError, match="line 1"):
        files.read_json(tmp_path / "a.json")


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"version": 1})

    def crash(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        files.write_json(path, {"version": 2})
    assert json.loads(path.read_text()) == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_says_what_to_do_and_leaves_no_partial_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*Free some space"):
        files.write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_other_os_errors_pass_through():
    with pytest.raises(FileNotFoundError), files.translate_os_errors("x"):
        raise FileNotFoundError(errno.ENOENT, "gone", "x")


def test_outputs_are_not_overwritten_without_force(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    with pytest.raises(OutputExistsError, match="--force"):
        files.prepare_output(tmp_path / "out")
    assert files.prepare_output(tmp_path / "out", force=True).is_dir()
    assert (tmp_path / "out" / "report.html").read_text() == "mine"
    assert files.prepare_output(tmp_path / "new" / "deep").is_dir()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputExistsError, match="must be a folder"):
        files.prepare_output(tmp_path / "out", force=True)


def test_an_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another place"):
        files.prepare_output(tmp_path / "file" / "out")


def test_hash_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_of_file(tmp_path / "abc") == expected


def test_a_killed_writer_never_leaves_a_half_file(tmp_path):
    # The process dies by SIGKILL after the temporary file is written, before the rename.
    script = f"""
import os, signal
from modelassay.core import files
files.write_atomically({str(tmp_path / "a")!r}, b"old")
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically({str(tmp_path / "a")!r}, b"new" * 100000)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    assert (tmp_path / "a").read_bytes() == b"old"
