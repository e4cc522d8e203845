"""The shuffled stream: every row once, really random, the same again after a resume."""

import math
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelassay.activations import stream as stream_module
from modelassay.activations.matrix import RowMatrix
from modelassay.activations.stream import ActivationStream, RowBlocks
from modelassay.core.errors import (
    NonFiniteError,
    ProvenanceError,
    TooFewTokensError,
    ValueRangeError,
)


def numbered(n: int, parts: int = 3) -> RowMatrix:
    """A matrix whose rows hold their own number."""
    return RowMatrix(parts=torch.arange(float(n))[:, None].tensor_split(parts), mapped=True)


def stream(
    n: int,
    *,
    block: int = 1,
    buffer: int = 10,
    batch: int = 4,
    seed: int = 0,
    epochs: int | None = 1,
) -> ActivationStream:
    blocks = RowBlocks(matrix=numbered(n), block_tokens=block, buffer_tokens=buffer)
    generator = torch.Generator().manual_seed(seed)
    return ActivationStream(blocks, batch_tokens=batch, generator=generator, epochs=epochs)


def row_numbers(batches: Iterator[Tensor]) -> list[int]:
    return [int(row) for batch in batches for row in batch[:, 0]]


sizes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 100),
        "block": st.integers(1, 20),
        "buffer": st.integers(5, 60),
        "batch": st.integers(1, 20),
        "seed": st.integers(0, 99),
    }
).filter(lambda size: size["batch"] <= size["n"])


@given(sizes)
def test_an_epoch_deals_out_every_row_once(size: dict[str, int]) -> None:
    batches = list(stream(**size))
    assert {len(batch) for batch in batches} == {size["batch"]}
    seen = row_numbers(iter(batches))
    assert len(seen) == len(set(seen))
    # Less than a batch may sit the epoch out.
    assert len(seen) == size["n"] // size["batch"] * size["batch"]


@given(sizes, st.integers(0, 20))
def test_a_resumed_stream_goes_on_with_the_same_batches(size: dict[str, int], done: int) -> None:
    first = stream(**size, epochs=None)
    for _ in range(done):
        next(first)
    state = first.state_dict()
    second = stream(**(size | {"seed": 1234}), epochs=None)
    next(second)
    second.load_state_dict(state)
    for _ in range(15):
        assert torch.equal(next(first), next(second))
    assert first.state_dict() == second.state_dict()


def test_epochs_differ_and_end() -> None:
    seen = row_numbers(stream(40, epochs=3))
    epochs = [seen[i : i + 40] for i in range(0, 120, 40)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    ended = stream(40, epochs=1)
    list(ended)
    assert list(ended) == []


def test_the_order_depends_on_the_generator_and_on_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = RowBlocks(matrix=numbered(30), block_tokens=1, buffer_tokens=10)
    own = ActivationStream(blocks, batch_tokens=3, generator=generator)
    first = next(own)
    torch.rand(100, generator=generator)  # another user of the same generator
    shared = [first, *(next(own) for _ in range(20))]
    alone = stream(30, batch=3, seed=0, epochs=None)
    assert all(torch.equal(batch, next(alone)) for batch in shared)
    assert row_numbers(stream(30, seed=0)) != row_numbers(stream(30, seed=1))


def test_single_rows_are_permuted_uniformly() -> None:
    draws = 720
    counts = Counter(tuple(row_numbers(stream(4, buffer=2, batch=1, seed=s))) for s in range(draws))
    expected = draws / math.factorial(4)
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in counts)
    assert len(counts) == 24
    assert chi_square < 49.7  # the 99.9 % point of 23 degrees of freedom


def mixing(batches: Iterator[Tensor], documents: int, tokens: int) -> float:
    """Mean over batches of chi-square per degree of freedom; 1 for uniformly random batches.

    A batch of B of N rows without replacement has a hypergeometric composition, whose chi-square
    statistic has the expectation (documents - 1) (N - B) / (N - 1).
    """
    total = count = 0.0
    for batch in batches:
        size = len(batch)
        found = torch.bincount(batch[:, 0].long() * documents // tokens, minlength=documents)
        chi_square = ((found - size / documents) ** 2 / (size / documents)).sum()
        total += float(chi_square) / (documents - 1) * (tokens - 1) / (tokens - size)
        count += 1
    return total / count


def test_batches_mix_documents_like_random_ones() -> None:
    # 40 documents of 500 neighbouring rows; 80 batches: the mean over 3,120 degrees of freedom
    # has a standard deviation of 0.025.
    n, documents, batch = 20_000, 40, 250
    exact = mixing(stream(n, buffer=1000, batch=batch), documents, n)
    assert exact == pytest.approx(1, abs=0.1)
    # The bound of RowBlocks.of: 1 + block * batch / buffer.
    blocks = mixing(stream(n, block=4, buffer=8000, batch=batch), documents, n)
    assert 0.9 < blocks < 1 + 4 * batch / 8000 + 0.1
    # What must not pass: shuffling a buffer of neighbours, and blocks as long as a document.
    neighbours = torch.arange(float(n))[:, None].split(4000)
    shuffled = (b for part in neighbours for b in part[torch.randperm(4000)].split(batch))
    assert mixing(shuffled, documents, n) > 10
    assert mixing(stream(n, block=500, buffer=2000, batch=batch), documents, n) > 5


def test_large_files_are_read_in_blocks_and_mixed_as_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = numbered(1000)
    assert RowBlocks.of(matrix).block_tokens == 1
    monkeypatch.setattr(stream_module, "_EXACT_BYTES", 3999)
    blocks = RowBlocks.of(matrix)
    assert blocks.block_tokens / blocks.buffer_tokens == 1 / 32768
    in_ram = RowMatrix(parts=matrix.parts, mapped=False)
    assert RowBlocks.of(in_ram).block_tokens == 1


def test_a_batch_is_the_callers_own() -> None:
    matrix = numbered(8, parts=1)
    before = matrix.tensor().clone()
    blocks = RowBlocks.of(matrix)
    for batch in ActivationStream(blocks, batch_tokens=4, generator=torch.Generator(), epochs=1):
        batch.zero_()
    assert torch.equal(matrix.tensor(), before)


class Failing(RowBlocks):
    """Blocks that cannot be loaded."""

    def load(self, blocks: Tensor, generator: torch.Generator) -> Tensor:
        raise NonFiniteError("bad block")


def test_a_failure_while_loading_ahead_reaches_the_caller() -> None:
    blocks = Failing(matrix=numbered(8), block_tokens=1, buffer_tokens=4)
    with pytest.raises(NonFiniteError, match="bad block"):
        next(ActivationStream(blocks, batch_tokens=2, generator=torch.Generator()))


def test_impossible_streams_are_refused() -> None:
    with pytest.raises(TooFewTokensError, match="one batch of 11 tokens; got 10 tokens"):
        stream(10, batch=11)
    with pytest.raises(ValueRangeError, match="batch_tokens must be at least 1; got 0"):
        stream(10, batch=0)


@pytest.mark.parametrize(
    ("change", "named"), [({"n": 12}, "tokens"), ({"batch": 2}, "batch_tokens")]
)
def test_the_state_of_another_stream_is_refused(change: dict[str, int], named: str) -> None:
    state = stream(10).state_dict()
    with pytest.raises(ProvenanceError, match=f"{named} must be"):
        stream(**({"n": 10} | change)).load_state_dict(state)
