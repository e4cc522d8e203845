"""Files of a repository: from a folder here, a local mirror, or the Hugging Face hub.

A name ``ORG/REPO/PATH``, or ``ORG/REPO@REVISION/PATH``, is looked for in this order: as a path on
this machine; in the mirror, if there is one, and nowhere else then; on the hub. Of a repository
only the files that a format asks for are fetched.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath

import huggingface_hub
from huggingface_hub import errors

from modelassay.core.errors import CorruptFileError, ValueRangeError

MIRROR = "MODELASSAY_MIRROR"
"""Environment variable: a folder with ``ORG/REPO/files``; with it no network is touched."""

_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.*))?")
# No network, no such name, no such repository; the base of the hub's own errors changed with the
# library that it fetches with.
_FAILURES: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    errors.HfHubHTTPError,
    getattr(errors, "HTTPError", OSError),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Somewhere in a repository."""

    repository: str
    """``ORG/REPO``."""
    revision: str | None
    """A branch, a tag or a commit; None is the main branch."""
    path: str
    """Inside the repository; empty for all of it."""

    @property
    def address(self) -> str:
        """``ORG/REPO`` with the revision, if one was asked for."""
        return self.repository + (f"@{self.revision}" if self.revision else "")

    def inside(self, *parts: str) -> "Place":
        """A place below this one."""
        path = str(PurePosixPath(self.path, *parts))
        return Place(
            repository=self.repository, revision=self.revision, path="" if path == "." else path
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A repository's folder on this machine, with the files that were asked for."""

    root: Path
    revision: str | None
    """The commit; None if a mirror does not say it."""


def parse_place(text: str) -> Place | None:
    """The place that a text names; None if it cannot be one.

    Raises:
        ValueRangeError: if its path leaves the repository.
    """
    found = _NAME.fullmatch(text)
    if found is None or text.startswith((".", "~")):
        return None
    path = (found[3] or "").strip("/")
    if ".." in PurePosixPath(path).parts:
        raise ValueRangeError(
            f"A path must stay inside its repository; got {text!r}. Write it without '..'."
        )
    return Place(repository=found[1], revision=found[2], path=path)


def mirror_folder(mirror: str | Path | None) -> Path | None:
    """The mirror that was given, or else the environment's."""
    chosen = mirror or os.environ.get(MIRROR)
    return Path(chosen) if chosen else None


def fetch(place: Place, files: Sequence[str], *, mirror: str | Path | None = None) -> Fetched:
    """Have some files of a repository on this machine.

    Args:
        place: which repository.
        files: paths inside it; ``*`` stands for any letters. Those that are not there are left
            out, but not all of them may be.
        mirror: a folder with ``ORG/REPO/files`` to use instead of the hub; None asks the
            environment.

    Raises:
        CorruptFileError: if none of the files can be had; it says where they were looked for.
    """
    folder = mirror_folder(mirror)
    if folder is not None:
        fetched = Fetched(root=folder / place.address, revision=None)
        where = f"the mirror {str(folder)!r}"
    else:
        fetched = _from_hub(place, files)
        where = "the Hugging Face hub"
    if not any(any(fetched.root.glob(_pattern(file))) for file in files):
        raise _absent(place, files, where, "none of them")
    return fetched


def files_of(place: Place, *, mirror: str | Path | None = None) -> list[str]:
    """The paths of all files of a repository, below the place's own path.

    Raises:
        CorruptFileError: if they cannot be listed; it says where they were looked for.
    """
    folder = mirror_folder(mirror)
    if folder is not None:
        root = folder / place.address
        if not root.is_dir():
            raise _absent(place, [place.path or "*"], f"the mirror {str(folder)!r}", "no such one")
        found = files_below(root)
    else:
        try:
            found = huggingface_hub.list_repo_files(place.repository, revision=place.revision)
        except _FAILURES as error:
            raise _unreachable(place, [place.path or "*"], error) from error
    prefix = f"{place.path}/" if place.path else ""
    return sorted(file.removeprefix(prefix) for file in found if file.startswith(prefix))


def files_below(root: Path) -> list[str]:
    """The paths of all files in a folder, seen from it."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def _from_hub(place: Place, files: Sequence[str]) -> Fetched:
    try:
        root = huggingface_hub.snapshot_download(
            place.repository, revision=place.revision, allow_patterns=[_pattern(f) for f in files]
        )
    except _FAILURES as error:
        raise _unreachable(place, files, error) from error
    # The cache keeps every commit in a folder that is named after it.
    return Fetched(root=Path(root), revision=Path(root).name)


def _pattern(file: str) -> str:
    """The glob of a path in which only ``*`` is special."""
    return escape(file).replace("[*]", "*")


def _unreachable(place: Place, files: Sequence[str], error: Exception) -> CorruptFileError:
    line = (str(error) or type(error).__name__).strip().splitlines()[0].split(". ")[0].rstrip(".")
    return _absent(place, files, "the Hugging Face hub", line)


def _absent(place: Place, files: Sequence[str], where: str, found: str) -> CorruptFileError:
    return CorruptFileError(
        f"{place.address!r} must be a path here or a repository with {' or '.join(files)}; got no "
        f"such path, and from {where}: {found}. Correct the name, go online, or put the files "
        f"into a folder {place.address} of a mirror and name that in {MIRROR}."
    )
