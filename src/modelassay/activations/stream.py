"""A shuffled, endless and exactly resumable stream of activations."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.joined import JoinedMatrix
from modelassay.activations.matrix import RowMatrix
from modelassay.core.errors import ProvenanceError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import derived

# All ours. Up to _EXACT_BYTES the page cache of an ordinary machine holds the matrix, and single
# rows are drawn from all of it. Above, rows are read in blocks of _BLOCK_BYTES (4 pages).
_EXACT_BYTES = 2**32
_EXACT_BUFFER_BYTES = 2**26
_BLOCK_BYTES = 2**14
_BLOCK_BUFFER_BYTES = 2**29


@runtime_checkable
class BatchStream(Protocol):
    """An endless stream of activations that can be taken up where it was left."""

    batch_tokens: int
    """Rows of every batch, those of other processes counted."""

    def __next__(self) -> Float[Tensor, "token width"]:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        ...


class Blocks(ABC):
    """Activations in blocks of rows, of which any set can be loaded."""

    buffer_tokens: int
    """Rows to load and mix at a time."""
    ahead: bool
    """Whether the next buffer may be loaded in a thread while one is used."""

    @property
    @abstractmethod
    def sizes(self) -> Int[Tensor, " block"]:
        """Rows of each block."""

    @abstractmethod
    def load(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Float[Tensor, "token width"]:
        """All rows of the given blocks, in random order."""

    def rows(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Int[Tensor, " token"] | None:
        """The numbers, in their source, of the rows that `load` gives for the same arguments.

        None where rows have no numbers: they are drawn, and no two of them are the same.
        """
        del blocks, generator
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBlocks(Blocks):
    """Blocks of `block_tokens` neighbouring rows of a matrix; the last may be shorter."""

    matrix: RowMatrix | JoinedMatrix
    block_tokens: int
    buffer_tokens: int
    ahead = True

    @staticmethod
    def of(matrix: RowMatrix | JoinedMatrix) -> "RowBlocks":
        """Single rows where the matrix is in RAM or fits into the page cache, else larger blocks.

        A row's neighbours in its block are in its batch with probability
        batch_tokens / buffer_tokens, so the count of one document's rows in a batch varies more
        than in a random batch: its variance is larger by a factor of at most
        1 + block_tokens * batch_tokens / buffer_tokens, which here is 1 + batch_tokens / 32768.
        """
        row = matrix.row_bytes
        if not matrix.mapped or len(matrix) * row <= _EXACT_BYTES:
            block, buffer = 1, _EXACT_BUFFER_BYTES // row
        else:
            block, buffer = _BLOCK_BYTES // row, _BLOCK_BUFFER_BYTES // row
        return RowBlocks(matrix=matrix, block_tokens=max(1, block), buffer_tokens=max(1, buffer))

    @property
    def sizes(self) -> Int[Tensor, " block"]:
        """Rows of each block."""
        starts = torch.arange(0, len(self.matrix), self.block_tokens)
        return (len(self.matrix) - starts).clamp(max=self.block_tokens)

    def load(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Float[Tensor, "token width"]:
        """All rows of the given blocks, in random order."""
        return self.matrix.gather(self.rows(blocks, generator))

    def rows(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Int[Tensor, " token"]:
        """The numbers of those rows in the matrix."""
        rows = blocks[:, None] * self.block_tokens + torch.arange(self.block_tokens)
        rows = rows[rows < len(self.matrix)]
        if self.block_tokens > 1:  # single rows come in random order already
            rows = rows[torch.randperm(len(rows), generator=generator)]
        return rows


class ActivationStream(Iterator[Tensor]):
    """Batches of activations in random order, epoch after epoch.

    Each epoch permutes all blocks, loads as many as fill the buffer, permutes the buffer's rows
    and deals them out. Where a block is one row this is a uniform permutation of all rows. Every
    batch has `batch_tokens` rows and no row comes twice in an epoch; the fewer than `batch_tokens`
    rows that are left at its end sit that epoch out.

    The order is a function of one number drawn from `generator`, so that the state of a stream is
    a few integers, whatever else uses the generator.

    Args:
        batch_tokens: rows of a batch.
        epochs: passes over the data; None for no end.

    Raises:
        TooFewTokensError: if there are fewer rows than one batch holds.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise ValueRangeError(f"batch_tokens must be at least 1; got {batch_tokens}.")
        self._blocks = blocks
        self._sizes = blocks.sizes
        self._tokens = int(self._sizes.sum())
        if self._tokens < batch_tokens:
            raise TooFewTokensError(
                f"A stream needs at least one batch of {batch_tokens} tokens; got "
                f"{self._tokens} tokens in all. Harvest more or lower batch_tokens."
            )
        self.batch_tokens = batch_tokens
        self.epochs = epochs
        self._seed = int(
            torch.randint(2**62, (1,), generator=generator, device=generator.device).item()
        )
        self._epoch = 0
        self._batch = 0
        self._running: Iterator[Tensor] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one pass over the data."""
        return self._tokens // self.batch_tokens

    def __next__(self) -> Float[Tensor, "token width"]:
        """The next batch: a tensor of its own, which the caller may change."""
        if self._batch == self.batches_per_epoch:
            self._epoch, self._batch, self._running = self._epoch + 1, 0, None
        if self.epochs is not None and self._epoch >= self.epochs:
            raise StopIteration
        if self._running is None:
            self._running = self._batches()
        batch = next(self._running)
        self._batch += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands; a stream that loads it goes on with the very same batches."""
        return {"seed": self._seed, "epoch": self._epoch, "batch": self._batch, **self._shape()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where another stream over the same activations stood.

        Raises:
            ProvenanceError: if that stream's activations or batches had another shape.
        """
        for name, here in self._shape().items():
            if state[name] != here:
                raise ProvenanceError(
                    f"A stream goes on only over the activations that it began with: {name} must "
                    f"be {state[name]}; got {here}. Use the same harvest and batch size."
                )
        self._seed, self._epoch, self._batch = state["seed"], state["epoch"], state["batch"]
        self._running = None

    def _shape(self) -> dict[str, int]:
        return {
            "tokens": self._tokens,
            "blocks": len(self._sizes),
            "buffer_tokens": self._blocks.buffer_tokens,
            "batch_tokens": self.batch_tokens,
        }

    def again(
        self, number: int
    ) -> tuple[Float[Tensor, "token width"], Int[Tensor, " token"] | None]:
        """A batch that was or will be dealt out, and which rows of the source it consists of.

        Where the stream stands does not change. This reads as much as a buffer holds, and is there
        to look into one batch.

        Args:
            number: of the batch since the stream's beginning, counted from 0.

        Returns:
            The batch, and the numbers of its rows; None where rows have none.
        """
        epoch, batch = divmod(number, self.batches_per_epoch)
        position = batch * self.batch_tokens
        values = next(self._dealt(self._buffers(epoch, position, self._blocks.load)))
        if self._blocks.rows(torch.zeros(0, dtype=torch.int64), torch.Generator()) is None:
            return values, None
        return values, next(self._dealt(self._buffers(epoch, position, self._row_numbers)))

    def _row_numbers(self, blocks: Tensor, generator: torch.Generator) -> Tensor:
        rows = self._blocks.rows(blocks, generator)
        assert rows is not None  # `again` has asked
        return rows

    def _batches(self) -> Iterator[Tensor]:
        """The rest of the epoch's batches."""
        position = self._batch * self.batch_tokens
        buffers = self._buffers(self._epoch, position, self._blocks.load)
        return self._dealt(_one_ahead(buffers) if self._blocks.ahead else buffers)

    def _dealt(self, buffers: Iterator[Tensor]) -> Iterator[Tensor]:
        """The buffers' rows, a batch at a time."""
        over: Tensor | None = None  # fewer rows than a batch, left by the buffer before
        for rows in buffers:
            if over is not None:
                missing = self.batch_tokens - len(over)
                over, rows = torch.cat([over, rows[:missing]]), rows[missing:]
                if len(over) < self.batch_tokens:
                    continue
                yield over
            end = len(rows) - len(rows) % self.batch_tokens
            for first in range(0, end, self.batch_tokens):
                yield rows[first : first + self.batch_tokens]
            over = rows[end:]

    def _buffers(
        self, epoch: int, position: int, load: Callable[[Tensor, torch.Generator], Tensor]
    ) -> Iterator[Tensor]:
        """What `load` gives for the epoch's rows from `position` on, a buffer at a time."""
        order = torch.randperm(len(self._sizes), generator=derived(self._seed, "order", epoch))
        ends = self._sizes[order].cumsum(0)
        buffers = torch.bincount((ends - 1) // self._blocks.buffer_tokens).tolist()
        start = 0
        for number, members in enumerate(order.split(buffers)):
            stop = start + int(self._sizes[members].sum())
            if stop > max(start, position):
                rows = load(members, derived(self._seed, "rows", epoch, number))
                yield rows[max(0, position - start) :]
            start = stop


def _one_ahead(items: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same items, each made in a thread while the one before is used."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
    finally:
        # Without waiting: a stream that is left half read is closed by the garbage collector, which
        # may run while this thread holds the lock that the other needs in order to end.
        pool.shutdown(wait=False)
