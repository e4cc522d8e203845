"""Files that are either whole or absent, and errors that say what to do.

Everything is written to a temporary name in the same folder, flushed to the disk, and renamed:
after a crash there is the old file or the new one, never a half. Tensors are stored as
safetensors, everything else as JSON; nothing is ever pickled.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from modelassay.core.errors import CorruptFileError, OutputExistsError, StorageError

_REMEDIES = {
    errno.ENOSPC: "Free some space or choose another place with --out.",
    errno.EDQUOT: "Free some of your quota or choose another place with --out.",
    errno.EACCES: "Choose a place that you may write to, with --out.",
    errno.EPERM: "Choose a place that you may write to, with --out.",
    errno.EROFS: "Choose a place that is not read-only, with --out.",
    errno.EEXIST: "A part of the path is a file; choose another place with --out.",
    errno.ENOTDIR: "A part of the path is a file; choose another place with --out.",
}


@contextmanager
def translate_os_errors(path: str | Path) -> Generator[None]:
    """Turn the operating system's refusals into a `StorageError` with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        raise StorageError(
            f"{str(path)!r} must be writable; got {error.strerror!r}. {remedy}"
        ) from error


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write `data` so that `path` holds either its old content or all of the new."""
    path = Path(path)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, without NaN (they become null) and with stable layout."""
    text = json.dumps(jsonable(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def jsonable(value: Any) -> Any:
    """The value in JSON's types: NaN and infinities become null, tensors and tuples lists."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, Tensor):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, float):
        # Six significant digits are far below any interval that we print.
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptFileError: if the file is not a JSON object.
        FileNotFoundError: if there is none.
    """
    text = Path(path).read_text("utf-8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptFileError(
            f"{str(path)!r} must be JSON; got an error at line {error.lineno}: {error.msg}. "
            "Make it again, or restore it from a copy."
        ) from error
    if not isinstance(content, dict):
        raise CorruptFileError(
            f"{str(path)!r} must hold a JSON object; got {type(content).__name__}. Make it again."
        )
    return content


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file, atomically."""
    # Copies: safetensors refuses tensors that share memory, as views of one result often do.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_atomically(path, save(copies, dict(metadata) if metadata else None))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CorruptFileError: if the file is truncated or no safetensors file.
        FileNotFoundError: if there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise CorruptFileError(
            f"{str(path)!r} must be a whole safetensors file; got: {error}. "
            "It may be truncated: make or fetch it again."
        ) from error


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare_output(directory: str | Path, *, force: bool = False) -> Path:
    """Make sure that an output folder exists, is writable, and overwrites nothing by accident.

    Raises:
        OutputExistsError: if the folder holds something already and `force` is False.
        StorageError: if the folder cannot be made or written.
    """
    directory = Path(directory)
    with translate_os_errors(directory):
        if directory.exists() and not directory.is_dir():
            raise OutputExistsError(
                f"The output must be a folder; got the file {str(directory)!r}. "
                "Choose another place with --out."
            )
        if directory.is_dir() and any(directory.iterdir()) and not force:
            raise OutputExistsError(
                f"The output folder must be empty; got {str(directory)!r} with files in it. "
                "Pass --force to overwrite them, or choose another place with --out."
            )
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    return directory
