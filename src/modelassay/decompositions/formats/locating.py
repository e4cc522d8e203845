"""From the name of a dictionary to its files on this machine, and to all names in a folder."""

import json
from dataclasses import dataclass
from pathlib import Path

from modelassay.core.errors import CorruptFileError, UnknownNameError
from modelassay.core.provenance import Provenance
from modelassay.decompositions.formats import releases
from modelassay.decompositions.formats.hub import (
    Place,
    fetch,
    files_below,
    files_of,
    parse_place,
)
from modelassay.decompositions.formats.wanted import LAYOUTS, lost_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """Where the files are."""

    format: str
    name: str
    """What followed the prefix."""
    path: Path
    repository: str | None = None
    revision: str | None = None
    """The commit, where it is known."""
    centred: bool | None = None
    """Whether a release says that the residual stream had its mean subtracted."""

    def provenance(self, name: str) -> Provenance | None:
        """Where the dictionary came from; None for a path of the user's."""
        if self.repository is None:
            return None
        return Provenance.collect(
            seed=0,
            source=name,
            format=self.format,
            repository=self.repository,
            revision=self.revision,
        )


def locate(
    kind: str, text: str, *, mirror: str | Path | None = None, layers: bool = False
) -> Located:
    """The files of one dictionary, fetched if need be.

    Args:
        kind: its format.
        text: a path, ``ORG/REPO/PATH``, or a ``RELEASE/ID``.
        mirror: used instead of the hub; None asks the environment.
        layers: whether a cross-layer transcoder's files are meant.

    Raises:
        CorruptFileError: if there are no such files anywhere.
        UnknownNameError: if a release has no such dictionary.
    """
    if Path(text).exists():
        return Located(format=kind, name=text, path=Path(text))
    release = releases.find_release(text) if kind == "saelens" else None
    if release is not None:
        kind, text = release.format, release.name
    place = parse_place(text)
    if place is None or kind not in LAYOUTS:
        return Located(format=kind, name=text, path=Path(text))  # whose reader says what is missing
    layout = LAYOUTS[kind]
    wanted = layout.wanted_layers(place.path) if layers else layout.wanted(place.path)
    try:
        fetched = fetch(place, wanted, mirror=mirror)
    except CorruptFileError as error:
        if kind == "saelens" and release is None:
            raise CorruptFileError(f"{error} {releases.hint()}") from error
        raise
    return Located(
        format=kind,
        name=text,
        path=fetched.root / place.path,
        repository=place.repository,
        revision=fetched.revision or place.revision,
        centred=None if release is None else release.centred,
    )


def list_dictionaries(name: str, *, mirror: str | Path | None = None) -> tuple[str, ...]:
    """The names of all dictionaries below a prefixed name, for `read_dictionary`.

    Args:
        name: such as ``sparsify:ORG/REPO``, ``circuit_tracer:path/to/folder`` or a release,
            ``saelens:RELEASE``.
        mirror: as in `read_dictionary`.

    Raises:
        UnknownNameError: if the prefix is no format's.
        CorruptFileError: if there is no such folder or repository or no dictionary in it, or a
            file or layer is missing among the others.
    """
    kind, colon, text = name.partition(":")
    if not colon or Path(name).exists():
        kind, text = "modelassay", name
    if kind not in LAYOUTS:
        raise UnknownNameError("A dictionary's format", kind, LAYOUTS)
    if Path(text).is_dir():
        base, place, files = text.rstrip("/"), None, files_below(Path(text))
    else:
        ids = releases.ids_of_release(text) if kind == "saelens" else None
        if ids is not None:
            return tuple(f"{kind}:{text}/{identifier}" for identifier in ids)
        place = parse_place(text)
        if place is None:
            raise _nothing(kind, text)
        files = files_of(place, mirror=mirror)
        base = f"{place.address}/{place.path}".rstrip("/")
    found = LAYOUTS[kind].among(files, kind)
    if not found:
        raise _nothing(kind, text)
    if kind == "sparsify" and "config.json" in files:
        _require_hookpoints(_root_of(place, text, mirror) / "config.json", found)
    return tuple(f"{kind}:{base}/{part}".removesuffix("/.").rstrip("/") for part in found)


def _root_of(place: Place | None, text: str, mirror: str | Path | None) -> Path:
    if place is None:
        return Path(text)
    config = place.inside("config.json")
    return fetch(config, [config.path], mirror=mirror).root / place.path


def _require_hookpoints(config: Path, found: list[str]) -> None:
    """sparsify's config of a whole training names every hookpoint."""
    content = json.loads(config.read_text("utf-8"))
    for hookpoint in content.get("hookpoints") or ():
        if not any(f"{folder}/".startswith(f"{hookpoint}/") for folder in found):
            raise lost_file(f"{hookpoint}/sae.safetensors", "sparsify")


def _nothing(kind: str, text: str) -> CorruptFileError:
    return CorruptFileError(
        f"{text!r} must be a folder or repository of {kind} dictionaries; got none in it. "
        "Check the name and the format."
    )
