"""Fitted lenses on disk: one safetensors file each, with a header that says what it was made from.

The header is JSON in the file's metadata: kind, model, the hash of its norm and unembedding, and
the provenance. So a lens cannot be separated from what it belongs to.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from torch import Tensor

from modelassay.core.errors import CorruptFileError, OutputExistsError
from modelassay.core.files import jsonable, read_tensors, write_tensors
from modelassay.core.provenance import Provenance

FORMAT_VERSION = 1
_KEY = "modelassay_lens"

Kind = Literal["tuned", "jacobian"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a fitted lens was made from."""

    kind: Kind
    subject: str
    """The model's name, for readers."""
    head: str
    """`lens.unembedding_hash` of the model."""
    provenance: Provenance

    def as_json(self) -> str:
        """The header as it stands in the file."""
        content = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "subject": self.subject,
            "head": self.head,
            "provenance": self.provenance.as_json(),
        }
        return json.dumps(jsonable(content), ensure_ascii=False)


def write_lens(
    path: str | Path, header: Header, tensors: Mapping[str, Tensor], *, force: bool = False
) -> None:
    """Write a lens atomically.

    Raises:
        OutputExistsError: there is a file already, and `force` is False.
        StorageError: the place cannot be written.
    """
    path = Path(path)
    if path.exists() and not force:
        raise OutputExistsError(
            f"A lens must not overwrite a file; got {str(path)!r}, which exists. "
            "Pass force=True (--force), or choose another place."
        )
    write_tensors(path, tensors, {_KEY: header.as_json()})


def read_lens(path: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """The header and the tensors of a lens.

    Raises:
        CorruptFileError: the file is truncated, or holds no lens of ours.
        FileNotFoundError: there is none.
    """
    tensors = read_tensors(path)
    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise CorruptFileError(
            f"{str(path)!r} must hold a fitted lens; got tensors {', '.join(sorted(tensors)[:4])} "
            "without a lens's header. Make one with `modelassay lens train`."
        )
    try:
        return _header(json.loads(text)), tensors
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{str(path)!r} must hold a lens with a whole header; got {error!r} while reading it. "
            "Make it again, or restore it from a copy."
        ) from error


def _header(content: dict[str, Any]) -> Header:
    version, kind = content["format_version"], content["kind"]
    if version != FORMAT_VERSION or kind not in ("tuned", "jacobian"):
        raise CorruptFileError(
            f"A lens must be of format {FORMAT_VERSION} and kind tuned or jacobian; got {version} "
            f"and {kind!r}. Update modelassay, or make the lens again."
        )
    return Header(
        kind=kind,
        subject=content["subject"],
        head=content["head"],
        provenance=Provenance.from_json(content["provenance"]),
    )
