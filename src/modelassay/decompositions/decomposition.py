"""The interface that every method of taking activations apart implements."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError
from modelassay.core.provenance import Provenance
from modelassay.decompositions.codes import Codes, concatenate
from modelassay.decompositions.folder import Saved, write_folder
from modelassay.decompositions.kernels import sparse_decode
from modelassay.subjects.site import Site

_CHUNK_TOKENS = 4096  # rows encoded at once, at most: ours
_CHUNK_ENTRIES = 2**22  # pre-activations held at once, 16 MiB in float32: ours, measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a decomposition consists of, for storage."""

    kind: str
    """Which class reads it back."""
    config: dict[str, Any] = field(default_factory=dict)
    """Everything that is no tensor, in JSON's types."""
    tensors: dict[str, Tensor]


class Decomposition(ABC):
    """Latents with directions: ``decode(codes) = bias + sum_i value_i * directions_i``."""

    name: str
    """Short and for readers: "TopK 4096 (k=32)"."""
    references: tuple[str, ...]
    """Keys of the papers that the method comes from."""
    reads: Site | None
    """Where the activations that it encodes stand; None if unknown."""
    writes: Site | None
    """What its reconstructions stand for; None if unknown."""
    subject_fingerprint: str | None = None
    """Weights' hash of the subject that it was fitted on, where known; kept by `save`."""
    provenance: Provenance | None = None
    """How it was made, where known; kept by `save`."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of latents."""

    @property
    @abstractmethod
    def d_in(self) -> int:
        """Width of the activations that it encodes."""

    @property
    @abstractmethod
    def directions(self) -> Float[Tensor, "latent d_out"]:
        """What one unit of each latent adds to the reconstruction."""

    @property
    def covectors(self) -> Float[Tensor, "latent d_in"]:
        """What each latent is read with: the linear part of the encoder, one row a latent.

        The directions, where a method reads with its directions' transpose.
        """
        return self.directions

    @property
    @abstractmethod
    def bias(self) -> Float[Tensor, " d_out"]:
        """The reconstruction when no latent is active."""

    @abstractmethod
    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """Codes of a few tokens that were checked already; use `encode`."""

    @abstractmethod
    def parts(self) -> Parts:
        """What `save` writes."""

    @property
    def d_out(self) -> int:
        """Width of the reconstructions."""
        return self.directions.shape[1]

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """The latents' values on some tokens, without gradients and in bounded memory.

        Args:
            x: activations, in the model's own units.

        Raises:
            ShapeError: if the width is not `d_in`.
            NonFiniteError: if there is a NaN or an infinity.
        """
        check_width(x, self.d_in)
        rows = max(1, min(_CHUNK_TOKENS, _CHUNK_ENTRIES // self.width))
        found: list[Codes] = []
        for chunk in x.split(rows):
            chunk = chunk.to(self.bias)  # its device and dtype: harvests may be kept in half
            if not bool(chunk.isfinite().all()):
                bad = int((~chunk.isfinite()).any(1).nonzero()[0, 0]) + rows * len(found)
                raise NonFiniteError(
                    f"Activations must be finite; got NaN or Inf in row {bad}. "
                    "Look for an overflow in the model: run it in float32."
                )
            found.append(self.encode_rows(chunk))
        return concatenate(found)

    def decode(self, codes: Codes) -> Float[Tensor, "token d_out"]:
        """The reconstruction; differentiable in the codes' values alone.

        Raises:
            ShapeError: if the codes are of another width.
        """
        if codes.width != self.width:
            raise ShapeError(
                f"Codes must have {self.width} latents; got {codes.width}. "
                "Decode with the decomposition that made them."
            )
        # Sparse also for dense codes: at worst it costs twice the dense product (measured).
        return sparse_decode(codes.values, codes.indices, self.directions) + self.bias

    def __call__(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        """The reconstruction of some activations: ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def save(self, directory: str | Path, *, force: bool = False) -> None:
        """Write a folder that `storage.load_decomposition` reads.

        Args:
            directory: made if absent.
            force: whether a decomposition that is there already may be replaced.

        Raises:
            OutputExistsError: if one is there already and `force` is False.
            StorageError: if the folder cannot be written.
        """
        parts = self.parts()
        saved = Saved(
            kind=parts.kind,
            name=self.name,
            reads=self.reads,
            writes=self.writes,
            references=tuple(self.references),
            subject_fingerprint=self.subject_fingerprint,
            provenance=self.provenance,
            config=parts.config,
            tensors=parts.tensors,
        )
        write_folder(saved, directory, force=force)


def check_width(x: Float[Tensor, "token d_in"], d_in: int) -> None:
    """Refuse activations that are not ``[token, d_in]``."""
    if x.ndim != 2 or x.shape[1] != d_in:
        raise ShapeError(
            f"Activations must have the shape [token, {d_in}]; got {list(x.shape)}. "
            "Use the decomposition on the site and model that it was made for."
        )
