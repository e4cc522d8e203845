"""Other libraries' files of tensors, read without running any of their code, and checked.

Every tensor is asked for by name and shape. What is missing, of another shape, not finite or not
known is refused: a dictionary that is almost right gives numbers that are quite wrong.
"""

import pickle
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    ShapeError,
    ValueRangeError,
)
from modelassay.core.files import read_json, read_tensors

__all__ = [
    "check_tensors",
    "read_config_file",
    "read_npz",
    "read_safetensors",
    "read_state_dict",
    "refusal",
    "require_file",
    "sizes_of",
    "whole_number",
]


def require_file(path: Path, kind: str) -> None:
    """Refuse a folder without the file.

    Raises:
        CorruptFileError: if it is not there.
    """
    if not path.is_file():
        raise CorruptFileError(
            f"A {kind} folder must hold {path.name}; got none in {str(path.parent)!r}. "
            "Check the path, or fetch the whole folder."
        )


def read_config_file(path: Path, kind: str) -> dict[str, Any]:
    """The JSON object beside the weights.

    Raises:
        CorruptFileError: if it is not there or no JSON object.
    """
    require_file(path, kind)
    return read_json(path)


def read_safetensors(path: Path, kind: str) -> dict[str, Tensor]:
    """A safetensors file.

    Raises:
        CorruptFileError: if it is not there, truncated or no safetensors file.
    """
    require_file(path, kind)
    return read_tensors(path)


def read_state_dict(path: Path, kind: str) -> dict[str, Any]:
    """A state dict that `torch.save` wrote: tensors and plain values by name.

    Only what `torch.load` allows with ``weights_only=True`` is read: no object of a class is ever
    made from the file, so that opening it runs no code of its author.

    Raises:
        CorruptFileError: if it is not there, truncated, holds anything else or no dictionary.
    """
    require_file(path, kind)
    with path.open("rb"):  # what may not be read says so itself
        pass
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols that it may not read; the error says enough.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"{str(path)!r} must be a whole state dict of tensors, as torch.save writes it; got: "
            f"{_first_sentence(error)}. Other pickles may run any code and are never opened: "
            "fetch the file again, or ask for the weights as safetensors."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CorruptFileError(
            f"{str(path)!r} must hold tensors by name; got {type(content).__name__}. "
            "Save the state dict of the dictionary, not the object."
        )
    return dict(content)


def read_npz(path: Path, kind: str) -> dict[str, Tensor]:
    """The arrays of a NumPy archive; pickled objects in it are refused.

    Raises:
        CorruptFileError: if it is not there, truncated or holds something else than arrays.
    """
    require_file(path, kind)
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, NpzFile):
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        problem = "one bare array"
    except (zipfile.BadZipFile, ValueError, TypeError, EOFError) as error:
        problem = _first_sentence(error)
    raise CorruptFileError(
        f"{str(path)!r} must be a whole .npz archive of numbers; got: {problem}. Fetch it again."
    )


def check_tensors(
    found: Mapping[str, Any],
    wanted: Mapping[str, list[int]],
    path: Path,
    *,
    optional: Collection[str] = (),
) -> dict[str, Tensor]:
    """The wanted tensors, each checked for its place, shape and values; half becomes single.

    Half precision is for storage: its products would lose what the audit measures.

    Args:
        found: what the file holds.
        wanted: the shape of every tensor that it may hold.
        path: the file, for messages.
        optional: which of them may be absent.

    Raises:
        CorruptFileError: if a tensor is missing.
        ShapeError: if a tensor has another shape.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if there is something else in the file.
    """
    for name in wanted:
        if name not in found and name not in optional:
            raise CorruptFileError(
                f"{str(path)!r}: the tensor {name} must be there, of shape {wanted[name]}; got "
                f"{', '.join(sorted(found))}. Fetch the folder again, or correct its architecture."
            )
    checked: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if name not in wanted:
            raise ValueRangeError(
                f"{str(path)!r}: the tensors must be {', '.join(wanted)}; got also {name}. "
                "Its meaning is not known here, and leaving it out would give wrong numbers."
            )
        if not isinstance(tensor, Tensor):
            raise CorruptFileError(
                f"{str(path)!r}: {name} must be a tensor of shape {wanted[name]}; got "
                f"{type(tensor).__name__}. Fetch the folder again."
            )
        _check_tensor(name, tensor, wanted[name], path)
        half = tensor.is_floating_point() and tensor.dtype != torch.float64
        checked[name] = tensor.float() if half else tensor
    return checked


def _check_tensor(name: str, tensor: Tensor, wanted: list[int], path: Path) -> None:
    shape = list(tensor.shape)
    if shape != wanted:
        hint = "Transpose it." if shape == wanted[::-1] else "Fetch the folder again."
        raise ShapeError(f"{str(path)!r}: {name} must have the shape {wanted}; got {shape}. {hint}")
    if not bool(tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise NonFiniteError(
            f"{str(path)!r}: {name} must be finite; got {bad} entries that are NaN or Inf. "
            "Fetch the folder again, or from before the training diverged."
        )


def sizes_of(found: Mapping[str, Any], path: Path, *, inputs: str, latents: str) -> tuple[int, int]:
    """Widths of activations and dictionary, by two biases: for files that no config goes with.

    Raises:
        CorruptFileError: if one of them is missing or no vector.
    """
    sizes: list[int] = []
    for name in (inputs, latents):
        tensor = found.get(name)
        if not isinstance(tensor, Tensor) or tensor.ndim != 1:
            shape = list(tensor.shape) if isinstance(tensor, Tensor) else "none"
            raise CorruptFileError(
                f"{str(path)!r}: the tensor {name} must be there, a vector; got {shape} among "
                f"{', '.join(sorted(found))}. Fetch the file again, or correct its format."
            )
        sizes.append(tensor.shape[0])
    return sizes[0], sizes[1]


def whole_number(content: Mapping[str, Any], key: str, path: Path) -> int:
    """A number of a config that must be there and at least 1.

    Raises:
        CorruptFileError: if it is not.
    """
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CorruptFileError(
            f"{str(path)!r}: {key} must be a whole number of at least 1; got {value!r}. "
            "Fetch the folder again."
        )
    return value


def refusal(path: Path, key: str, found: object, expected: str) -> ValueRangeError:
    """The error for a value whose meaning this reader does not know."""
    return ValueRangeError(
        f"{str(path)!r}: {key} must be {expected}; got {found!r}. "
        "Its meaning is not known here, and guessing it would give wrong numbers."
    )


def _first_sentence(error: Exception) -> str:
    """What went wrong, without torch's advice to switch the safety off."""
    text = str(error) or type(error).__name__
    named = [line for line in text.splitlines() if "Unsupported" in line or "GLOBAL" in line]
    line = (named or text.splitlines())[0].strip()
    return line.split(". ")[0].rstrip(".")[:160]
