"""Checkpoints in as many files as a dictionary has parts, read back by any number of processes.

`checkpoint.json` names the files with their SHA-256, and says for every tensor which part of it
each file holds. The files are written first, under names of their own; replacing the JSON, which
the first process does when all have written, makes the new checkpoint current.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelassay.core.errors import StorageError
from modelassay.core.files import read_json, sha256_of_file, write_json, write_tensors
from modelassay.fitting.checkpoints import (
    INDEX,
    Checkpoint,
    read_checkpoint,
    require_fields,
    require_same_run,
)
from modelassay.fitting.distributed.collectives import gathered_texts
from modelassay.fitting.distributed.mesh import ProcessMesh, divided
from modelassay.fitting.distributed.parts import latent_axis
from modelassay.fitting.distributed.slices import SlicedFiles

FORMAT_VERSION = 2
"""Format 1 is a checkpoint in one file; see `fitting.checkpoints`."""


def write_sharded(directory: Path, checkpoint: Checkpoint, mesh: ProcessMesh) -> None:
    """Make `checkpoint` the folder's current one. All processes call it after the same step.

    Args:
        directory: on a disk that all processes write to.
        checkpoint: its tensors are this process's parts.
        mesh: the processes; of those with the same latents, the first writes.

    Raises:
        StorageError: on every process, if one cannot write; the checkpoint that was there before
            is then still whole.
    """
    written = ""
    if mesh.token_shard == 0:
        written = _write_part(directory, checkpoint, mesh)
    parts = _all_succeeded(written, mesh)
    finished = ""
    if mesh.is_first:
        finished = _write_index(directory, checkpoint, [part for part in parts if part])
    _all_succeeded(finished, mesh)


def _write_part(directory: Path, checkpoint: Checkpoint, mesh: ProcessMesh) -> str:
    """Write this process's file; what it holds, or an error, as JSON."""
    part = f"part_{mesh.latent_shard}_of_{mesh.latent_shards}"
    file = directory / f"step_{checkpoint.step:09d}.{part}.safetensors"
    # What every process has whole stands in the first one's file alone.
    tensors = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if mesh.latent_shard == 0 or latent_axis(name, tensor.ndim) is not None
    }
    try:
        write_tensors(file, tensors)
        checksum = sha256_of_file(file)
    except OSError as error:
        return json.dumps({"error": str(error)})
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return json.dumps({"file": file.name, "sha256": checksum, "shapes": shapes})


def _write_index(directory: Path, checkpoint: Checkpoint, parts: Sequence[dict[str, Any]]) -> str:
    """Write the JSON and remove what it replaces; "" or an error, as JSON."""
    tensors: dict[str, dict[str, Any]] = {}
    for part in parts:
        for name, shape in part["shapes"].items():
            axis = latent_axis(name, len(shape))
            entry = tensors.setdefault(name, {"shape": shape, "axis": axis, "parts": {}})
            start = 0
            if entry["parts"]:
                start = entry["shape"][axis]
                entry["shape"][axis] += shape[axis]
            entry["parts"][part["file"]] = [start, start + (1 if axis is None else shape[axis])]
    files = {part["file"]: part["sha256"] for part in parts}
    index = {
        "format_version": FORMAT_VERSION,
        "configuration": checkpoint.configuration,
        "step": checkpoint.step,
        "files": files,
        "tensors": tensors,
        "state": checkpoint.state,
    }
    try:
        write_json(directory / INDEX, index)
        for outdated in directory.glob("step_*.safetensors"):
            if outdated.name not in files:
                outdated.unlink()
    except OSError as error:
        return json.dumps({"error": str(error)})
    return ""


def _all_succeeded(report: str, mesh: ProcessMesh) -> list[dict[str, Any]]:
    """What the processes have to report, if none of them reports an error."""
    texts = gathered_texts(report, mesh.everyone, mesh.device)
    reports: list[dict[str, Any]] = [json.loads(text) if text else {} for text in texts]
    for rank, found in enumerate(reports):
        if "error" in found:
            raise StorageError(
                f"Every process must be able to write its part of a checkpoint; got from process "
                f"{rank}: {found['error']}"
            )
    return reports


def read_part(
    directory: Path, configuration: Mapping[str, Any], mesh: ProcessMesh | None
) -> Checkpoint:
    """This process's part of the folder's current checkpoint, however many processes wrote it.

    Args:
        directory: of the checkpoint.
        configuration: of the run that goes on.
        mesh: the processes of that run; None for one that has it all.

    Raises:
        ProvenanceError: if the configurations differ; names the first field that does.
        CorruptFileError: if a file is missing or altered, or the format is another one.
    """
    index = read_json(directory / INDEX)
    if index.get("format_version") != FORMAT_VERSION:
        return _part_of_one_file(read_checkpoint(directory, configuration), mesh)
    require_fields(index, ("configuration", "step", "files", "tensors", "state"), directory)
    require_same_run(index["configuration"], configuration, directory)
    parts, part = (1, 0) if mesh is None else (mesh.latent_shards, mesh.latent_shard)
    files = SlicedFiles(directory, index["files"])
    tensors: dict[str, Tensor] = {}
    for name, entry in index["tensors"].items():
        require_fields(entry, ("shape", "axis", "parts"), directory, of=repr(name))
        axis = entry["axis"]
        wanted = None if axis is None else divided(entry["shape"][axis], parts)[part]
        tensors[name] = files.assemble(name, entry["shape"], axis, entry["parts"], wanted)
    if mesh is None:
        # One process keeps a set of latents as their numbers.
        tensors = {
            name: tensor.nonzero().squeeze(1) if tensor.dtype == torch.bool else tensor
            for name, tensor in tensors.items()
        }
    return Checkpoint(
        configuration=index["configuration"],
        step=index["step"],
        tensors=tensors,
        state=index["state"],
    )


def _part_of_one_file(checkpoint: Checkpoint, mesh: ProcessMesh | None) -> Checkpoint:
    """This process's part of a checkpoint that one process wrote."""
    if mesh is None:
        return checkpoint
    tensors = dict(checkpoint.tensors)
    for name, tensor in checkpoint.tensors.items():
        axis = latent_axis(name, tensor.ndim)
        # A set of latents, kept as their numbers, is no axis of latents.
        if axis is not None and not name.endswith("dead"):
            mine = mesh.latents_of(tensor.shape[axis])
            tensors[name] = tensor.narrow(axis, mine.start, len(mine))
    return replace(checkpoint, tensors=tensors)
