"""Stores: killed and resumed, damaged, foreign, unfinished, on a full disk, larger than RAM."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from modelassay.activations.corpus import Corpus, corpus_from_texts
from modelassay.activations.folder import Folder
from modelassay.activations.harvest import Harvest, harvest, open_harvest
from modelassay.activations.manifest import Manifest
from modelassay.activations.pretokenised import corpus_from_tokens
from modelassay.activations.store import StoreWriter, pack_contexts
from modelassay.core.errors import (
    CorruptFileError,
    OutputExistsError,
    ProvenanceError,
    StorageError,
    UnknownNameError,
)
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

SITES = ["resid_post.0", "mlp_out.1"]


def store(subject: Subject, corpus: Corpus, directory: Path | str, **options: Any) -> Harvest:
    """A harvest of several shards."""
    settings = {"sites": SITES, "context_tokens": 24, "batch_contexts": 8, "shard_bytes": 1}
    return harvest(subject, corpus, directory=directory, **(settings | options))


def shards(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Name -> content and time of every shard."""
    files = sorted(directory.glob("shard-*"))
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_a_kill_at_any_moment_is_survived(saved_subject: Path, tmp_path: Path) -> None:
    program = Path(__file__).with_name("killed_harvests.py")
    subprocess.run([sys.executable, program, saved_subject, tmp_path], check=True, timeout=240)
    subject = load_subject(saved_subject)
    corpus = corpus_from_texts([f"text number {i} " * 8 for i in range(4)], source="numbers")
    whole = shards(tmp_path / "whole")
    assert len(whole) == 3
    killed = sorted(tmp_path.glob("killed-*"), key=lambda path: int(path.name[7:]))[:-1]
    # Three files, and three shards each followed by the manifest: nine writes of two moments.
    assert len(killed) == 2 * 9
    kept = []
    for directory in killed:
        listed = []
        if (directory / "manifest.json").is_file():
            with pytest.raises(CorruptFileError, match="Run the same harvest with this directory"):
                open_harvest(directory, subject)
            listed = [s["name"] for s in json.loads(_manifest(directory))["shards"]]
        before = shards(directory) if directory.exists() else {}
        resumed = store(subject, corpus, directory, context_tokens=32, batch_contexts=6)
        after = shards(directory)
        assert {name: data for name, (data, _) in after.items()} == {
            name: data for name, (data, _) in whole.items()
        }
        # What was whole is not made again, and nothing half made remains.
        assert all(after[name] == before[name] for name in listed)
        assert not list(directory.glob(".*"))
        assert resumed.n_tokens == open_harvest(tmp_path / "whole").n_tokens
        kept.append(len(listed))
    assert kept == sorted(kept)
    assert set(kept) == {0, 1, 2}


def _manifest(directory: Path) -> str:
    return (directory / "manifest.json").read_text()


def test_a_finished_store_is_only_opened(subject: Subject, corpus: Corpus, tmp_path: Path) -> None:
    first = store(subject, corpus, tmp_path)
    before = shards(tmp_path)
    assert len(before) > 3
    second = store(subject, corpus, tmp_path)
    assert shards(tmp_path) == before
    assert torch.equal(first.activations(SITES[0]), second.activations(SITES[0]))


def test_a_lost_shard_is_made_again(subject: Subject, corpus: Corpus, tmp_path: Path) -> None:
    store(subject, corpus, tmp_path)
    before = shards(tmp_path)
    (tmp_path / "shard-00001.safetensors").unlink()
    with pytest.raises(CorruptFileError, match=r"shard-00001\.safetensors' must be there"):
        open_harvest(tmp_path)
    store(subject, corpus, tmp_path, batch_contexts=4)
    after = shards(tmp_path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name][1] != before[name][1]} == {
        "shard-00001.safetensors"
    }


@pytest.mark.parametrize(
    "name", ["shard-00002.safetensors", "contexts.safetensors", "documents.json"]
)
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_file_is_refused_by_name(
    subject: Subject, corpus: Corpus, tmp_path: Path, name: str, damage: str
) -> None:
    store(subject, corpus, tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(data[:-7])
    else:
        data[-5] ^= 1
        path.write_bytes(data)
    expected = {
        "truncated": rf"must have {len(data)} bytes; got",
        "altered": "must have the SHA-256",
    }
    with pytest.raises(CorruptFileError, match=rf"{name}' {expected[damage]}"):
        open_harvest(tmp_path)
    if name.startswith("shard"):
        with pytest.raises(CorruptFileError, match=name):
            store(subject, corpus, tmp_path)
    path.unlink()
    repaired = store(subject, corpus, tmp_path)
    exact = store(subject, corpus, tmp_path / "other")
    assert torch.equal(repaired.activations(SITES[1]), exact.activations(SITES[1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: "{", "must be the manifest of a harvest; got"),
        (lambda m: "[]", "must be the manifest of a harvest; got"),
        (lambda m: m.replace('"seed"', '"seeds"'), "must be the manifest of a harvest; got"),
        (lambda m: m.replace('"modelassay-harvest"', '"other"'), "got 'other', version 1"),
        (
            lambda m: m.replace('"format_version": 1', '"format_version": 99'),
            "version 99. Open it with the release that wrote it",
        ),
        (lambda m: m.replace('"resid_post.0": 16', '"resid_post.0": 17'), "rows of width 17"),
        (lambda m: m.replace('"float32"', '"bfloat16"'), "must hold bfloat16 rows"),
        (lambda m: m.replace('"resid_post.0"', '"resid_post.1"'), "must be a shard of this store"),
    ],
)
def test_a_damaged_manifest_is_refused(
    subject: Subject, corpus: Corpus, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    store(subject, corpus, tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(CorruptFileError, match=message):
        open_harvest(tmp_path)


def test_a_store_of_something_else_is_refused(
    subject: Subject, make_subject: Callable[[int], Subject], corpus: Corpus, tmp_path: Path
) -> None:
    store(subject, corpus, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = make_subject(1)
    mine, theirs = subject.fingerprint(), other.fingerprint()
    message = f"same model: expected '{other.name}' .*{theirs}.*; got '{subject.name}' .*{mine}"
    with pytest.raises(ProvenanceError, match=message):
        store(other, corpus, tmp_path)
    with pytest.raises(ProvenanceError, match=f"fingerprint {theirs}; got {mine}"):
        open_harvest(tmp_path, other)
    moved = Corpus(source="fewer letters", documents=corpus.documents[:-1])
    with pytest.raises(ProvenanceError, match="same corpus: expected 'fewer letters'"):
        store(subject, moved, tmp_path)
    with pytest.raises(ProvenanceError, match="same corpus"):
        store(subject, corpus, tmp_path, context_tokens=25)
    with pytest.raises(ProvenanceError, match=r"same sites and widths: expected \{'resid_post\.1'"):
        store(subject, corpus, tmp_path, sites=["resid_post.1"])
    with pytest.raises(ProvenanceError, match="same dtype: expected 'float16'"):
        store(subject, corpus, tmp_path, dtype=torch.float16)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_other_things_is_left_alone(
    subject: Subject, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"must be empty; got .* with 'thesis\.tex' in it"):
        store(subject, corpus, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_without_a_store_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", "memory://nothing/here"):
        with pytest.raises(CorruptFileError, match=r"must have a manifest\.json; got none in"):
            open_harvest(path)


def test_a_place_that_cannot_be_written_is_refused(
    subject: Subject, corpus: Corpus, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(StorageError, match="must be a folder; got the file"):
        store(subject, corpus, file)
    with pytest.raises(StorageError, match="must be writable; got 'Not a directory'"):
        store(subject, corpus, file / "below")
    with pytest.raises(UnknownNameError, match=r"protocol of a store must be one of.*'memery'"):
        store(subject, corpus, "memery://store")


@pytest.mark.parametrize("full_at", [0, 1, 2, 3, 4, 6])
def test_a_full_disk_leaves_nothing_that_looks_whole(
    subject: Subject,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_at: int,
) -> None:
    calls = iter(range(100))

    def fsync(_descriptor: int) -> None:
        if next(calls) >= full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match=r"No space left on device.*Free some space"):
            store(subject, corpus, tmp_path / "store")
        with pytest.raises((CorruptFileError, StorageError)):
            open_harvest(tmp_path / "store")
    assert not list(tmp_path.glob("store/.*"))
    resumed = store(subject, corpus, tmp_path / "store")
    exact = store(subject, corpus, tmp_path / "other")
    assert torch.equal(resumed.activations(SITES[0]), exact.activations(SITES[0]))


def test_a_bucket_that_refuses_is_reported(
    subject: Subject, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("access denied by policy")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    with pytest.raises(StorageError, match="must be readable and writable; got: access denied"):
        store(subject, corpus, f"memory://{tmp_path}")


def test_a_store_in_a_bucket_is_resumed_and_checked(
    subject: Subject, corpus: Corpus, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path}"
    bucket = fsspec.filesystem("memory")
    local = store(subject, corpus, tmp_path / "local")
    store(subject, corpus, url)
    bucket.rm(f"{url}/shard-00001.safetensors")
    remote = store(subject, corpus, url)
    for site in SITES:
        assert torch.equal(remote.activations(site), local.activations(site))
    assert remote.contexts.corpus == corpus
    assert (
        bucket.cat(f"{url}/shard-00001.safetensors")
        == (tmp_path / "local" / "shard-00001.safetensors").read_bytes()
    )
    bucket.pipe(f"{url}/shard-00001.safetensors", b"short")
    with pytest.raises(CorruptFileError, match=r"shard-00001\.safetensors' must have"):
        open_harvest(url)


def anonymous_bytes() -> int:
    """RAM of this process that is not a file's: what the system cannot simply drop."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_a_store_larger_than_its_share_of_ram_is_not_read_into_it(tmp_path: Path) -> None:
    width, n_shards, rows = 1024, 4, 8192
    contexts = corpus_from_tokens(torch.zeros(n_shards * rows // 64, 64).long(), source="zeros")
    _write_random_store(tmp_path, contexts, width, n_shards)
    size = sum(path.stat().st_size for path in tmp_path.glob("shard-*"))
    assert size > 2**27
    before = anonymous_bytes()
    opened = open_harvest(tmp_path)
    matrix = opened.matrices[opened.sites[0]]
    picked = matrix.gather(torch.arange(0, len(matrix), 997))
    total = sum(float(chunk.sum(dtype=torch.float64)) for chunk in matrix.chunks())
    assert anonymous_bytes() - before < size / 3
    assert torch.isfinite(picked).all()
    assert abs(total) < 6 * (n_shards * rows * width) ** 0.5
    # A few rows at a time reach the caller of a stream too.
    stream = opened.stream(batch_tokens=16, generator=torch.Generator())
    assert next(stream).shape == (16, width)


def _write_random_store(directory: Path, contexts: Any, width: int, n_shards: int) -> None:
    packed = pack_contexts(contexts)
    contexts_file, documents_file = packed
    manifest = Manifest(
        subject_name="none",
        subject_fingerprint="0" * 16,
        widths={"resid_post.0": width},
        dtype="float32",
        contexts_fingerprint=contexts.fingerprint(),
        corpus_source="zeros",
        corpus_fingerprint=contexts.corpus.fingerprint(),
        n_documents=len(contexts),
        n_contexts=len(contexts),
        context_tokens=64,
        n_tokens=contexts.n_tokens,
        seed=0,
        contexts_per_shard=len(contexts) // n_shards,
        provenance={},
        contexts=contexts_file,
        documents=documents_file,
    )
    writer = StoreWriter(Folder(str(directory)), manifest, packed)
    generator = torch.Generator().manual_seed(0)
    for number in writer.missing:
        rows = torch.randn(contexts.n_tokens // n_shards, width, generator=generator)
        writer.write_shard(number, {"resid_post.0": rows})
    assert writer.missing == []


def test_rows_must_fit_the_contexts(tmp_path: Path) -> None:
    contexts = corpus_from_tokens(torch.zeros(3, 64).long(), source="zeros")
    _write_random_store(tmp_path, contexts, width=4, n_shards=2)
    with pytest.raises(CorruptFileError, match="a row for each of 192 tokens; got 288 at"):
        open_harvest(tmp_path)
