import pytest
import torch

from modelassay.activations.matrix import RowMatrix
from modelassay.activations.stream import ActivationStream, RowBlocks
from modelassay.core.errors import ValueRangeError
from modelassay.fitting.distributed.stream import SharedStream
from tests.fitting.distributed.one_part import OnePart


def stream(batch_tokens: int = 12) -> ActivationStream:
    rows = torch.arange(100.0).unsqueeze(1)
    return ActivationStream(
        RowBlocks.of(RowMatrix(parts=(rows,), mapped=False)),
        batch_tokens=batch_tokens,
        generator=torch.Generator().manual_seed(1),
    )


def test_shares_make_up_the_batches_of_one_process():
    whole = stream()
    shares = [SharedStream(stream(), OnePart(tokens=(part, 3))) for part in range(3)]
    for _ in range(20):
        assert torch.equal(torch.cat([next(share) for share in shares]), next(whole))


def test_a_share_goes_on_where_another_process_stood():
    first, second = (SharedStream(stream(), OnePart(tokens=(1, 3))) for _ in range(2))
    for _ in range(11):
        next(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(next(first), next(second))


def test_batches_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueRangeError, match=r"multiple of the 5 processes .* got 12"):
        SharedStream(stream(), OnePart(tokens=(0, 5)))
