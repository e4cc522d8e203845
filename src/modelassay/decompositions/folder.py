"""A decomposition's folder: ``config.json`` and ``weights.safetensors``.

The weights are written first and the config, which holds their checksum, last: a folder with a
config is complete, and a folder that was interrupted while being replaced is refused.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from modelassay.core.errors import CorruptFileError, OutputExistsError, UnknownNameError
from modelassay.core.files import (
    read_json,
    read_tensors,
    sha256_of_file,
    write_atomically,
    write_tensors,
)
from modelassay.core.provenance import Provenance
from modelassay.subjects.site import Site

FORMAT = "modelassay decomposition"
VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
_KEYS = {
    "kind", "name", "reads", "writes", "references", "subject_fingerprint", "provenance", "config",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """Everything that stands in a folder."""

    kind: str
    """Which class reads it back."""
    name: str
    reads: Site | None
    writes: Site | None
    references: tuple[str, ...]
    subject_fingerprint: str | None
    provenance: Provenance | None
    config: dict[str, Any]
    """What the kind itself needs."""
    tensors: dict[str, Tensor]


def write_folder(saved: Saved, directory: str | Path, *, force: bool) -> None:
    """Write the folder, weights first.

    Raises:
        OutputExistsError: if it holds a decomposition and `force` is False.
        StorageError: if it cannot be written.
    """
    directory = Path(directory)
    if (directory / CONFIG_FILE).exists() and not force:
        raise OutputExistsError(
            f"A decomposition's folder must be new; got {str(directory)!r} with a {CONFIG_FILE} "
            "in it. Pass force=True to replace it, or choose another place."
        )
    write_tensors(directory / WEIGHTS_FILE, saved.tensors)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": saved.kind,
        "name": saved.name,
        "reads": None if saved.reads is None else str(saved.reads),
        "writes": None if saved.writes is None else str(saved.writes),
        "references": list(saved.references),
        "subject_fingerprint": saved.subject_fingerprint,
        "provenance": None if saved.provenance is None else saved.provenance.as_json(),
        "config": saved.config,
        "weights_sha256": sha256_of_file(directory / WEIGHTS_FILE),
    }
    # Not `write_json`, which rounds: a recipe must come back equal to the last digit.
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(directory / CONFIG_FILE, text + "\n")


@contextmanager
def naming_what_is_missing(directory: str | Path, kind: str) -> Generator[None]:
    """Inside the ``with`` block, an entry that a folder lacks is named with the folder.

    Raises:
        CorruptFileError: for a `KeyError` of the block's.
    """
    try:
        yield
    except CorruptFileError as error:  # says what, and not yet where
        if str(directory) in str(error):
            raise
        raise CorruptFileError(f"{str(directory)!r}: {error}") from error
    except UnknownNameError:  # a KeyError that speaks for itself
        raise
    except KeyError as error:
        raise CorruptFileError(
            f"The {kind} in {str(directory)!r} must have the entry {error.args[0]!r}; got "
            "none. Make it again."
        ) from error


def read_folder(directory: str | Path) -> Saved:
    """Read a folder and verify its checksum.

    Raises:
        CorruptFileError: if it is no decomposition's folder, is damaged, or is of a later version.
    """
    config_path = Path(directory) / CONFIG_FILE
    weights_path = Path(directory) / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise CorruptFileError(
                f"A decomposition's folder must hold {path.name}; got none in "
                f"{str(directory)!r}. Check the path, or make the decomposition again."
            )
    content = read_json(config_path)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CorruptFileError(
            f"{str(config_path)!r} must say format {FORMAT!r}, version {VERSION}; got "
            f"{content.get('format')!r}, version {content.get('version')!r}. "
            "Use the release of modelassay that wrote it, or read it as a SAELens folder."
        )
    found = sha256_of_file(weights_path)
    if found != content.get("weights_sha256"):
        raise CorruptFileError(
            f"{str(weights_path)!r} must have the SHA-256 {content.get('weights_sha256')}; got "
            f"{found}. The file was altered or its writing was cut short: make it again."
        )
    missing = sorted(_KEYS - content.keys())
    if missing:
        raise CorruptFileError(
            f"{str(config_path)!r} must have the key {missing[0]!r}; got none. Make it again."
        )
    return Saved(
        kind=content["kind"],
        name=content["name"],
        reads=None if content["reads"] is None else Site.parse(content["reads"]),
        writes=None if content["writes"] is None else Site.parse(content["writes"]),
        references=tuple(content["references"]),
        subject_fingerprint=content["subject_fingerprint"],
        provenance=content["provenance"] and Provenance.from_json(content["provenance"]),
        config=content["config"],
        tensors=read_tensors(weights_path),
    )
