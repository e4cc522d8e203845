"""A folder on any file system that fsspec knows: a path, a bucket, memory."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from modelassay.activations.manifest import StoredFile
from modelassay.core.errors import CorruptFileError, StorageError, UnknownNameError
from modelassay.core.files import sha256_of_file, translate_os_errors, write_atomically


class Folder:
    """Files that are written whole or not at all, and checked when they are read.

    On a local disk a file is written under a temporary name, flushed and renamed. Elsewhere one
    put writes it: object stores show an object only when it is whole.

    Args:
        url: a local path, or anything that fsspec opens, such as "s3://bucket/folder".

    Raises:
        UnknownNameError: if fsspec knows no such protocol.
        StorageError: if the protocol needs a package that is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except ValueError as error:
            protocol = url.partition("://")[0]
            known = sorted(fsspec.available_protocols())
            raise UnknownNameError("The protocol of a store", protocol, known) from error
        except ImportError as error:
            raise StorageError(f"The store {url!r} must be reachable; got: {error}.") from error
        self._local = isinstance(self._files, LocalFileSystem)

    def path(self, name: str) -> str:
        """The path of a file, for messages and for the file system."""
        return f"{self._root}/{name}"

    def clear_unfinished(self, *patterns: str) -> None:
        """Remove temporary files of the named files, left behind by a killed process."""
        if self._local:
            with self._errors(self._root):
                for pattern in patterns:
                    for path in Path(self._root).glob(f".{pattern}.*"):
                        path.unlink(missing_ok=True)

    def names(self) -> set[str]:
        """The files in the folder; temporary files of a killed process do not count."""
        with self._errors(self._root):
            if not self._files.exists(self._root):
                return set()
            if not self._files.isdir(self._root):
                raise StorageError(
                    f"A store must be a folder; got the file {self.url!r}. Choose another place."
                )
            paths = [str(path) for path in self._files.ls(self._root, detail=False)]
        names = {path.rstrip("/").rpartition("/")[2] for path in paths}
        return {name for name in names if not name.startswith(".")}

    def write(self, name: str, data: bytes) -> StoredFile:
        """Write a file, whole or not at all.

        Raises:
            StorageError: if the disk is full or the place may not be written.
        """
        path = self.path(name)
        with self._errors(path):
            if self._local:
                write_atomically(path, data)
            else:
                self._files.makedirs(self._root, exist_ok=True)
                self._files.pipe_file(path, data)
        return StoredFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self._errors(self.path(name)):
            return self._files.cat_file(self.path(name))

    def fetch(self, file: StoredFile, scratch: str) -> Path:
        """A whole, unaltered file on the local disk, where it can be memory-mapped.

        Args:
            scratch: a local folder, to which a file from elsewhere is downloaded.

        Raises:
            CorruptFileError: if the file is missing, truncated or altered.
        """
        path = self.path(file.name)
        with self._errors(path):
            if not self._files.exists(path):
                raise _corrupt(path, "be there", "no such file")
            size = self._files.size(path)
            if size != file.bytes:
                raise _corrupt(path, f"have {file.bytes} bytes", f"{size}")
            local = Path(path) if self._local else Path(scratch, file.name)
            if not self._local:
                self._files.get_file(path, str(local))
            digest = sha256_of_file(local)
        if digest != file.sha256:
            raise _corrupt(path, f"have the SHA-256 {file.sha256}", digest)
        return local

    @contextmanager
    def _errors(self, path: str) -> Generator[None]:
        try:
            with translate_os_errors(path):
                yield
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"{path!r} must be readable and writable; got: {error}. Choose another place."
            ) from error


def _corrupt(path: str, expected: str, found: str) -> CorruptFileError:
    return CorruptFileError(
        f"{path!r} must {expected}; got {found}. Restore it from a copy, or delete it and run "
        "the same harvest again: only what is missing is computed."
    )
