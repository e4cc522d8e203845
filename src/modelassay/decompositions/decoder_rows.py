"""Decoders of many targets: rows held in memory, or read from a file when they are needed."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modelassay.core.errors import CorruptFileError, NonFiniteError, ShapeError


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRows:
    """A tensor ``[latent, target, d_out]`` in a safetensors file, of which only rows are read.

    A cross-layer transcoder has thousands of times more decoder than a token needs: of 10^5
    latents a hundred are active. The file must stay where it is.
    """

    path: Path
    key: str
    shape: tuple[int, int, int]
    """Of what `rows` reads from: latents, targets from `first` on, width."""
    first: int = 0
    """How many targets at the front are no part of it."""

    @staticmethod
    def open(path: Path, key: str, wanted: tuple[int, int, int], *, first: int = 0) -> "StoredRows":
        """The rows of a tensor whose shape is checked now, and whose values when they are read.

        Args:
            path: the file.
            key: the tensor's name.
            wanted: the shape that it must have in the file.
            first: how many targets at the front to leave out.

        Raises:
            CorruptFileError: if the file or the tensor is missing, or the file is truncated.
            ShapeError: if the tensor has another shape.
        """
        found = _shape(path, key)
        if found != list(wanted):
            raise ShapeError(
                f"{str(path)!r}: {key} must have the shape {list(wanted)}; got {found}. "
                "Fetch the file again."
            )
        latents, targets, d_out = wanted
        return StoredRows(path=path, key=key, shape=(latents, targets - first, d_out), first=first)

    def rows(self, latents: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen target d_out"]:
        """The decoders of some latents, in float32.

        Raises:
            CorruptFileError: if the file is gone or cut short meanwhile.
            NonFiniteError: if they hold NaN or infinities.
        """
        try:
            with safe_open(str(self.path), framework="pt") as file:
                read: Tensor = file.get_slice(self.key)[latents.tolist()]
        except (SafetensorError, OSError) as error:
            raise _unreadable(self.path, error) from error
        rows = read[:, self.first :].float()
        if not bool(rows.isfinite().all()):
            raise NonFiniteError(
                f"{str(self.path)!r}: {self.key} must be finite; got NaN or Inf in the rows of "
                f"{int((~rows.isfinite()).flatten(1).any(1).sum())} latents. Fetch it again."
            )
        return rows.to(latents.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRows:
    """A tensor ``[latent, target, d_out]`` in memory."""

    weight: Float[Tensor, "latent target d_out"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Latents, targets, width."""
        latents, targets, d_out = self.weight.shape
        return latents, targets, d_out

    def rows(self, latents: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen target d_out"]:
        """The decoders of some latents."""
        return self.weight[latents.to(self.weight.device)]


DecoderRows = HeldRows | StoredRows
"""Decoders of one source, wherever they are."""


def _shape(path: Path, key: str) -> list[int]:
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            if key in names:
                return list(file.get_slice(key).get_shape())
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    raise CorruptFileError(
        f"{str(path)!r}: the tensor {key} must be there; got {', '.join(sorted(names))}. "
        "Fetch the file again."
    )


def _unreadable(path: Path, error: Exception) -> CorruptFileError:
    return CorruptFileError(
        f"{str(path)!r} must be a whole safetensors file; got: {error}. "
        "It may be truncated or moved: fetch it again."
    )
