"""`RowMatrix`: one row a token, in RAM or memory-mapped from several shards, read when asked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.statistics import Moments

_CHUNK_BYTES = 2**24  # 16 MiB: large enough to hide the cost of a call, small beside a shard (ours)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowMatrix:
    """A matrix whose rows lie in one or more tensors and are copied only when they are read."""

    parts: tuple[Float[Tensor, "_ width"], ...]
    """Consecutive rows, in RAM or memory-mapped."""
    mapped: bool
    """Whether the parts are files that the system may drop from RAM and read again."""
    kept: Int[Tensor, " token"] | None = None
    """Increasing row numbers of the parts that belong to this matrix; None for all."""

    def __len__(self) -> int:
        return sum(map(len, self.parts)) if self.kept is None else len(self.kept)

    @property
    def width(self) -> int:
        """Columns."""
        return self.parts[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the values are stored, and handed out."""
        return self.parts[0].dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * self.dtype.itemsize

    def keep(self, rows: Int[Tensor, " kept"]) -> "RowMatrix":
        """The matrix of the given rows (increasing); nothing is copied."""
        return replace(self, kept=rows if self.kept is None else self.kept[rows])

    def gather(self, rows: Int[Tensor, " picked"]) -> Float[Tensor, "picked width"]:
        """A copy of the given rows, in the order given."""
        if self.kept is not None:
            rows = self.kept[rows]
        if len(self.parts) == 1:
            return self.parts[0].index_select(0, rows)
        # Sorted, so that each file is read once and from front to back.
        rows, place = rows.sort()
        picked = torch.empty(len(rows), self.width, dtype=self.dtype)
        ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)
        borders = torch.searchsorted(rows, ends).tolist()
        start = first = 0
        for part, border, end in zip(self.parts, borders, ends.tolist(), strict=True):
            if border > start:
                values = part.index_select(0, rows[start:border] - first)
                picked.index_copy_(0, place[start:border], values)
            start, first = border, end
        return picked

    def chunks(self) -> Iterator[Float[Tensor, "chunk width"]]:
        """All rows in order, some megabytes at a time."""
        step = max(1, _CHUNK_BYTES // self.row_bytes)
        if self.kept is None:
            for part in self.parts:
                yield from part.split(step)
        else:
            for rows in torch.arange(len(self)).split(step):
                yield self.gather(rows)

    def moments(self, *, finite_only: bool = False) -> Moments:
        """Mean, covariance and norm of all rows, or of those without NaN and Inf."""
        of = Moments.of_finite if finite_only else Moments.of
        return reduce(add, map(of, self.chunks()), Moments.zero(self.width))

    def non_finite(self) -> Int[Tensor, " bad"]:
        """Numbers of the rows with NaN or Inf, increasing; reads all of the matrix."""
        bad = torch.cat([~chunk.isfinite().all(1) for chunk in self.chunks()])
        return bad.nonzero()[:, 0]

    def tensor(self) -> Float[Tensor, "token width"]:
        """All rows as one tensor: a view where there is one part and all of it, else a copy."""
        if self.kept is None and len(self.parts) == 1:
            return self.parts[0]
        return self.gather(torch.arange(len(self)))
