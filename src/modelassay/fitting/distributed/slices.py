"""Slices of tensors whose parts lie in several safetensors files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modelassay.core.errors import CorruptFileError
from modelassay.core.files import sha256_of_file


class SlicedFiles:
    """Files that together hold some tensors; each is verified when it is first read.

    Args:
        directory: where they are.
        checksums: the SHA-256 of every file.
    """

    def __init__(self, directory: Path, checksums: Mapping[str, str]) -> None:
        self._directory = directory
        self._checksums = checksums
        self._verified: set[str] = set()

    def assemble(
        self,
        name: str,
        shape: Sequence[int],
        axis: int | None,
        parts: Mapping[str, Sequence[int]],
        wanted: range | None,
    ) -> Tensor:
        """A slice of a tensor along an axis.

        Args:
            name: of the tensor in every file.
            shape: of the whole tensor.
            axis: along which it is divided; None if it is not.
            parts: for every file, where its part starts and where it ends.
            wanted: the places along the axis that are wanted; None for a whole tensor.

        Raises:
            CorruptFileError: if a file is missing, altered or holds something else.
        """
        if axis is None or wanted is None:
            if not parts:
                raise CorruptFileError(
                    f"The index of {str(self._directory)!r} must say which file holds {name!r}; "
                    "got none. Restore the folder from a copy, or remove it and begin again."
                )
            return self._read(next(iter(parts)), name, list(shape), None, range(0))
        found: list[Tensor] = []
        reached = wanted.start
        for file, (start, stop) in sorted(parts.items(), key=lambda part: part[1][0]):
            inside = range(max(start, wanted.start), min(stop, wanted.stop))
            if len(inside):
                expected = [*shape[:axis], stop - start, *shape[axis + 1 :]]
                local = range(inside.start - start, inside.stop - start)
                found.append(self._read(file, name, expected, axis, local))
                reached += len(inside) if inside.start == reached else 0
        if reached != wanted.stop:
            raise CorruptFileError(
                f"The parts of {name!r} in {str(self._directory)!r} must hold latents "
                f"{wanted.start} to {wanted.stop - 1}; got them up to {reached - 1}. "
                "Restore the folder from a copy, or remove it and begin again."
            )
        return found[0] if len(found) == 1 else torch.cat(found, axis)

    def _read(
        self, file: str, name: str, shape: list[int], axis: int | None, wanted: range
    ) -> Tensor:
        """A slice of what one file holds, whose shape must be `shape`."""
        self._verify(file, name)
        path = self._directory / file
        try:
            with safe_open(path, "pt") as opened:
                part = opened.get_slice(name)
                found = list(part.get_shape())
                if found == shape:
                    if axis is None:
                        return opened.get_tensor(name)
                    places = [slice(None)] * axis + [slice(wanted.start, wanted.stop)]
                    return part[tuple(places)]
        except SafetensorError as error:
            raise CorruptFileError(
                f"{str(path)!r} must hold the tensor {name!r}; got: {error}. "
                "Restore it from a copy, or remove the folder and begin again."
            ) from error
        raise CorruptFileError(
            f"{name!r} in {str(path)!r} must have the shape {shape}; got {found}. "
            "Restore it from a copy, or remove the folder and begin again."
        )

    def _verify(self, file: str, name: str) -> None:
        if file in self._verified:
            return
        path = self._directory / file
        if file not in self._checksums:
            raise CorruptFileError(
                f"The index of {str(self._directory)!r} must have a SHA-256 of every file; got "
                f"none of {file!r}, which holds a part of {name!r}. "
                "Restore the folder from a copy, or remove it and begin again."
            )
        found = f"the SHA-256 {sha256_of_file(path)}" if path.is_file() else "no such file"
        if found != f"the SHA-256 {self._checksums[file]}":
            raise CorruptFileError(
                f"{str(path)!r}, which holds a part of {name!r}, must have the SHA-256 "
                f"{self._checksums[file]}; got {found}. "
                "Restore it from a copy, or remove the folder and begin again."
            )
        self._verified.add(file)
