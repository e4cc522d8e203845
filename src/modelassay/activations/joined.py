"""`JoinedMatrix`: the activations of several sites, side by side in each row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.matrix import RowMatrix


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JoinedMatrix:
    """Matrices with the same rows, one beside the other; only rows that are read are copied."""

    matrices: tuple[RowMatrix, ...]
    """One a site, all of the same length."""

    def __len__(self) -> int:
        return len(self.matrices[0])

    @property
    def mapped(self) -> bool:
        """Whether some of them are files."""
        return any(matrix.mapped for matrix in self.matrices)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all."""
        return sum(matrix.row_bytes for matrix in self.matrices)

    def gather(self, rows: Int[Tensor, " picked"]) -> Float[Tensor, "picked width"]:
        """A copy of the given rows, in the order given."""
        return torch.cat([matrix.gather(rows) for matrix in self.matrices], dim=1)
