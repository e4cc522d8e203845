"""The corpus of the standard library's source."""

import sysconfig
from pathlib import Path

import pytest

from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.errors import TooFewTokensError


def test_this_python_has_a_corpus() -> None:
    corpus = stdlib_corpus()
    texts = {document.name: document for document in corpus.documents}
    assert "def dataclass(" in texts["dataclasses.py"].text
    assert list(texts) == sorted(texts, key=lambda name: Path(name).parts)
    assert not any({"test", "site-packages"} & set(Path(name).parts) for name in texts)
    assert sum(len(document.text) for document in corpus.documents) > 2_000_000
    assert 0.03 < sum(d.split == "heldout" for d in corpus.documents) / len(texts) < 0.25
    assert stdlib_corpus().fingerprint() == corpus.fingerprint()


def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    return tmp_path


def test_odd_files_are_read_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = library(tmp_path, monkeypatch)
    (root / "latin.py").write_bytes(b"# coding: latin-1\r\nname = '\xe9'\r\n")
    (root / "broken.py").write_bytes(b"name = '\xe9'\n")
    (root / "unknown.py").write_bytes(b"# coding: no-such-code\n")
    (root / "empty.py").write_bytes(b"")
    (root / "table.py").write_text("x = 1\n" * 100_000)
    (root / "folder.py").mkdir()
    for folder in ("test", "site-packages", "inner"):
        (root / folder).mkdir()
        (root / folder / "code.py").write_text("pass\n")
    read = {document.name: document.text for document in stdlib_corpus().documents}
    assert read == {"inner/code.py": "pass\n", "latin.py": "# coding: latin-1\nname = 'é'\n"}
    with_tests = {document.name for document in stdlib_corpus(with_tests=True).documents}
    assert with_tests - set(read) == {"test/code.py"}


def test_a_python_without_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path, monkeypatch)
    with pytest.raises(TooFewTokensError, match="must hold Python source; got none below"):
        stdlib_corpus()
