"""Sparse latent values."""

from collections.abc import Sequence
from dataclasses import dataclass

import scipy.sparse
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.decompositions.selection import above, pad_bags


@dataclass(frozen=True, kw_only=True, slots=True)
class Codes:
    """The latents' values on some tokens: for every token, a few slots of (latent, value).

    A slot with value 0 is empty and its index is ignored. A latent stands in at most one slot of
    a token. Values may be negative where the method allows it (PCA, neurons).
    """

    indices: Int[Tensor, "token slot"]
    """Latent of each slot."""
    values: Float[Tensor, "token slot"]
    """Value of each slot, in units of the decomposition's directions."""
    width: int
    """Number of latents of the decomposition."""

    def __post_init__(self) -> None:
        if self.indices.shape != self.values.shape or self.indices.ndim != 2:
            raise ShapeError(
                "indices and values must have the same shape [token, slot]; got "
                f"{list(self.indices.shape)} and {list(self.values.shape)}. "
                "Pass one value for every index."
            )

    @staticmethod
    def from_dense(dense: Float[Tensor, "token width"]) -> "Codes":
        """Codes of a dense matrix: its entries other than zero."""
        magnitudes, indices, offsets = above(dense.abs(), 0.0)
        mask, indices = pad_bags((magnitudes > 0).to(dense.dtype), indices, offsets)
        values = dense.gather(1, indices) * mask
        return Codes(indices=indices, values=values, width=dense.shape[1])

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return self.indices.shape[0]

    def __getitem__(self, rows: slice | Int[Tensor, " row"] | Bool[Tensor, " token"]) -> "Codes":
        """The codes of some tokens."""
        return Codes(indices=self.indices[rows], values=self.values[rows], width=self.width)

    def only(self, latents: Int[Tensor, " chosen"]) -> "Codes":
        """The same codes with all other latents silent."""
        kept = torch.zeros(self.width, dtype=torch.bool, device=self.indices.device)
        kept[latents] = True
        values = self.values * kept[self.indices]
        return Codes(indices=self.indices, values=values, width=self.width)

    def dense(self) -> Float[Tensor, "token width"]:
        """All values as one matrix: ``tokens * width`` numbers."""
        # Added, not assigned: an empty slot must not erase the value its index points to.
        dense = self.values.new_zeros(self.n_tokens, self.width)
        return dense.scatter_add(1, self.indices, self.values)

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """All values as a SciPy matrix without explicit zeros."""
        active = self.active().cpu()
        starts = F.pad(active.sum(1).cumsum(0), (1, 0))
        values, indices = self.values.detach().cpu()[active], self.indices.cpu()[active]
        return scipy.sparse.csr_matrix(
            (values.numpy(), indices.numpy(), starts.numpy()), shape=(self.n_tokens, self.width)
        )

    def active(self) -> Bool[Tensor, "token slot"]:
        """Which slots hold a value."""
        return self.values != 0

    def l0(self) -> Float[Tensor, " token"]:
        """Number of active latents of every token."""
        return self.active().sum(1).to(torch.float32)

    def firing_counts(self) -> Int[Tensor, " {self.width}"]:
        """Number of tokens on which each latent is active."""
        return torch.bincount(self.indices[self.active()], minlength=self.width)


def concatenate(codes: Sequence[Codes]) -> Codes:
    """Codes of consecutive runs of tokens as one, with as many slots as the widest has.

    Raises:
        ShapeError: if there are none, or if they are of different decompositions.
    """
    widths = {part.width for part in codes}
    if len(widths) != 1:
        raise ShapeError(
            f"Codes to join must be of one width, and at least one; got widths {sorted(widths)}. "
            "Join codes of the same decomposition."
        )
    slots = max(part.indices.shape[1] for part in codes)
    return Codes(
        indices=torch.cat([F.pad(p.indices, (0, slots - p.indices.shape[1])) for p in codes]),
        values=torch.cat([F.pad(p.values, (0, slots - p.values.shape[1])) for p in codes]),
        width=widths.pop(),
    )
