import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.subjects.inputs import check_mask, check_tokens


def test_good_tokens_and_masks_pass():
    tokens = torch.tensor([[0, 9], [3, 4]])
    check_tokens(tokens, 10, 2)
    check_mask(torch.tensor([[True, False], [True, True]]), tokens)


@pytest.mark.parametrize(
    "tokens", [torch.zeros(3, dtype=torch.long), torch.zeros(1, 3), torch.zeros(1, 0).long()]
)
def test_what_is_no_batch_of_ids_is_refused(tokens):
    with pytest.raises(ShapeError, match=r"tokens must be ids \[batch token\]"):
        check_tokens(tokens, 10, 10)


@pytest.mark.parametrize("token", [-1, 10])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(ValueRangeError, match=f"from 0 to 9; got {token} to {token}"):
        check_tokens(torch.tensor([[token]]), 10, 10)


def test_too_long_a_context_is_refused():
    with pytest.raises(ValueRangeError, match="at most 4 tokens; got 5"):
        check_tokens(torch.zeros(1, 5, dtype=torch.long), 10, 4)


@pytest.mark.parametrize("row", [[False, True, True], [True, False, True], [False, False, False]])
def test_padding_anywhere_but_on_the_right_is_refused(row):
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueRangeError, match="Pad on the right"):
        check_mask(torch.tensor([row]), tokens)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"got \[1, 2\] for \[1, 3\]"):
        check_mask(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.long))
