"""The corpus that every machine with Python has: the source of its standard library."""

import sysconfig
import tokenize
from pathlib import Path

from modelassay.activations.corpus import Corpus, Document, split_of
from modelassay.core.errors import TooFewTokensError

# Tables and third-party code, not prose of programmers: encodings/ and pydoc_data/ are generated.
_EXCLUDED = {"site-packages", "dist-packages", "encodings", "pydoc_data", "__pycache__"}
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_MAX_CHARACTERS = 400_000  # longer files are generated tables (ours)


def stdlib_corpus(*, with_tests: bool = False, heldout_share: float = 0.1) -> Corpus:
    """The Python files of this interpreter's standard library.

    The split is by a hash of the file's path below the library's root, so the same file lies on
    the same side in every Python version.

    Args:
        with_tests: include the test suites (not every distribution ships them).
        heldout_share: share of files held out.

    Raises:
        TooFewTokensError: if the library has no readable source (a frozen or stripped Python).
    """
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        folders = set(relative.parts[:-1])
        if folders & _EXCLUDED or (not with_tests and folders & _TEST_FOLDERS):
            continue
        text = _read_source(path)
        if text is not None and 0 < len(text) <= _MAX_CHARACTERS:
            name = relative.as_posix()
            documents.append(Document(name=name, text=text, split=split_of(name, heldout_share)))
    if not documents:
        raise TooFewTokensError(
            f"The standard library must hold Python source; got none below {root.name!r}. "
            "Use a Python that ships its library as files, or pass a corpus of your own."
        )
    version = ".".join(sysconfig.get_python_version().split(".")[:2])
    return Corpus(source=f"Python {version} standard library", documents=tuple(documents))


def _read_source(path: Path) -> str | None:
    """A file's text in its declared encoding, or None where it cannot be decoded."""
    try:
        # tokenize.open reads the PEP 263 coding line; newlines become "\n".
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError, OSError):
        return None
