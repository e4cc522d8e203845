"""Checkpoints from which a run goes on bit for bit, whenever it was killed.

A checkpoint is a folder with `checkpoint.json` and one safetensors file that the JSON names with
its SHA-256. The tensors are written first, under a name of their own; replacing the JSON is the
one atomic step that makes the new checkpoint current. Nothing is pickled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from modelassay.core.errors import CorruptFileError, ProvenanceError
from modelassay.core.files import (
    jsonable,
    read_json,
    read_tensors,
    sha256_of_file,
    write_json,
    write_tensors,
)

FORMAT_VERSION = 1
INDEX = "checkpoint.json"
"""The file that makes a folder a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The whole state of a run after some step."""

    configuration: dict[str, Any]
    """What the run was asked to do; a run may only go on with an equal one."""
    step: int
    """Steps done."""
    tensors: dict[str, Tensor]
    """Weights, optimiser moments, silence counts, generator states."""
    state: dict[str, Any]
    """The rest, as JSON: positions in the data."""


def has_checkpoint(directory: Path) -> bool:
    """Whether the folder holds a checkpoint."""
    return (directory / INDEX).is_file()


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Make `checkpoint` the folder's current one.

    Raises:
        StorageError: if the disk is full or the folder may not be written; the checkpoint that
            was there before is then still whole.
    """
    tensors = directory / f"step_{checkpoint.step:09d}.safetensors"
    write_tensors(tensors, checkpoint.tensors)
    index = {
        "format_version": FORMAT_VERSION,
        "configuration": checkpoint.configuration,
        "step": checkpoint.step,
        "tensors": tensors.name,
        "sha256": sha256_of_file(tensors),
        "state": checkpoint.state,
    }
    write_json(directory / INDEX, index)
    for outdated in directory.glob("step_*.safetensors"):
        if outdated != tensors:
            outdated.unlink()


def read_checkpoint(directory: Path, configuration: Mapping[str, Any]) -> Checkpoint:
    """The folder's current checkpoint, if it was made by a run of the same configuration.

    Raises:
        ProvenanceError: if the configurations differ; names the first field that does.
        CorruptFileError: if a file is missing or altered, or the format is a newer one.
    """
    index = read_json(directory / INDEX)
    if index.get("format_version") != FORMAT_VERSION:
        raise CorruptFileError(
            f"{str(directory)!r} must hold a checkpoint of format {FORMAT_VERSION}; got format "
            f"{index.get('format_version')!r}. Resume with the version that wrote it."
        )
    require_fields(index, ("configuration", "step", "tensors", "sha256", "state"), directory)
    require_same_run(index["configuration"], configuration, directory)
    tensors = directory / index["tensors"]
    found = f"the SHA-256 {sha256_of_file(tensors)}" if tensors.is_file() else "no such file"
    if found != f"the SHA-256 {index['sha256']}":
        raise CorruptFileError(
            f"{str(tensors)!r}, which {INDEX} names, must have the SHA-256 {index['sha256']}; got "
            f"{found}. Restore it from a copy, or remove the folder and begin again."
        )
    return Checkpoint(
        configuration=index["configuration"],
        step=index["step"],
        tensors=read_tensors(tensors),
        state=index["state"],
    )


def require_fields(
    found: Mapping[str, Any], expected: Sequence[str], directory: Path, *, of: str = ""
) -> None:
    """Refuse an index of which an entry was lost.

    Args:
        found: the index, or a part of it.
        expected: what it must have.
        directory: of the checkpoint.
        of: which part of the index it is, for the message.

    Raises:
        CorruptFileError: if a field is missing; names it.
    """
    for field in expected:
        if field not in found:
            place = f"{of} in {str(directory / INDEX)!r}" if of else repr(str(directory / INDEX))
            raise CorruptFileError(
                f"{place} must have the fields {', '.join(expected)}; got no {field!r}. "
                "Restore it from a copy, or remove the folder and begin again."
            )


def require_same_run(found: Mapping[str, Any], asked: Mapping[str, Any], directory: Path) -> None:
    """Refuse a checkpoint of a run that was asked to do something else.

    Args:
        found: the checkpoint's configuration.
        asked: that of the run that would go on from it.
        directory: of the checkpoint.

    Raises:
        ProvenanceError: if they differ; names the first field that does.
    """
    _require_equal(found, jsonable(asked), directory)


def _require_equal(
    found: Mapping[str, Any], asked: Mapping[str, Any], directory: Path, prefix: str = ""
) -> None:
    for field in [*found, *(name for name in asked if name not in found)]:
        there, here = found.get(field), asked.get(field)
        if isinstance(there, dict) and isinstance(here, dict):
            _require_equal(there, here, directory, f"{prefix}{field}.")
        elif there != here:
            raise ProvenanceError(
                f"A run must go on with the configuration of its checkpoint; {prefix}{field} was "
                f"{there!r} in {str(directory)!r} and now is {here!r}. "
                "Change it back, or choose another folder for the checkpoint."
            )
