"""Files of many layers: which there are, and whether one was lost among them."""

import re
from collections.abc import Sequence
from pathlib import Path

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.subjects.site import Site


def numbered_files(folder: Path, template: str, kind: str) -> list[Path]:
    """The files of all layers, from 0 to the last without a gap.

    Args:
        folder: where they lie.
        template: their name, with ``{}`` in the layer's place.
        kind: what the folder is, for messages.

    Raises:
        CorruptFileError: if there are none, or one is missing before the last.
    """
    pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))
    entries = folder.iterdir() if folder.is_dir() else ()
    layers = {int(found[1]) for path in entries if (found := pattern.fullmatch(path.name))}
    for layer in range(max(layers, default=0) + 1):
        if layer not in layers:
            raise missing_file(folder / template.format(layer), kind, len(layers))
    return [folder / template.format(layer) for layer in sorted(layers)]


def require_count(folder: Path, template: str, kind: str, *, found: int, wanted: int) -> None:
    """Refuse layers of which the last were lost, where one of them says how many there are.

    Raises:
        CorruptFileError: if files are missing.
        ValueRangeError: if there are too many.
    """
    if found < wanted:
        raise missing_file(folder / template.format(found), kind, found)
    if found > wanted:
        raise ValueRangeError(
            f"{str(folder)!r} must hold {wanted} layers, as the decoders say; got {found}, such "
            f"as {template.format(wanted)}. Keep each transcoder in a folder of its own."
        )


def missing_file(path: Path, kind: str, n_found: int) -> CorruptFileError:
    """The error for a layer that is not there."""
    return CorruptFileError(
        f"A {kind} folder must hold {path.name}; got {n_found} other layers in "
        f"{str(path.parent)!r}. Fetch the missing file."
    )


def sites_of_layers(
    given: Sequence[Site] | None, named: Sequence[Site | None], folder: Path, argument: str
) -> list[Site]:
    """The sites that the caller gave, or else those that the files name.

    Raises:
        ValueRangeError: if neither names one for every layer.
    """
    sites = list(named if given is None else given)
    known = [site for site in sites if site is not None]
    if len(known) != len(named) or len(sites) != len(named):
        raise ValueRangeError(
            f"{str(folder)!r}: {argument} must name a site for each of {len(named)} layers; got "
            f"{len(known)}. Pass {argument}=, in the order of the layers."
        )
    return known
