"""How fast a disk takes and gives activations, and how much of it is free."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from modelassay.core.files import translate_os_errors

_PIECE_BYTES = 2**20
_PIECES = 64  # enough to leave a drive's own cache, little enough for a second's test (ours)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.resolve()
    while not path.is_dir():
        path = path.parent
    return path


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder lies on, or would lie on."""
    return shutil.disk_usage(nearest_folder(folder)).free


def disk_rates(folder: Path) -> tuple[float, float]:
    """Bytes/s of writing to the disk of a folder, flushed, and of reading back.

    The system is asked to forget the file before it is read; where it cannot be asked, the second
    rate is that of its cache.

    Raises:
        StorageError: if the disk is full or the place may not be written.
    """
    piece = os.urandom(_PIECE_BYTES)
    place = nearest_folder(folder)
    with translate_os_errors(place), tempfile.TemporaryFile(dir=place, buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(_PIECES):
            file.write(piece)
        os.fsync(file.fileno())
        written = time.perf_counter()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        opened = time.perf_counter()
        while file.read(_PIECE_BYTES):
            pass
        read = time.perf_counter()
    moved = _PIECE_BYTES * _PIECES
    return moved / (written - begin), moved / (read - opened)
