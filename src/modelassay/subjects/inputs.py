"""Checks of what a language model is given."""

from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError


def check_tokens(tokens: Tensor, vocab_size: int, context_tokens: int) -> None:
    """Refuse anything but token ids of this vocabulary in contexts that the model can hold.

    Raises:
        ShapeError: not ids ``[batch token]``.
        ValueRangeError: an id outside the vocabulary, or too long a context.
    """
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
        raise ShapeError(
            "tokens must be ids [batch token], at least one; got "
            f"{list(tokens.shape)} of {tokens.dtype}. Tokenize the text first."
        )
    if tokens.shape[1] > context_tokens:
        raise ValueRangeError(
            f"A context must have at most {context_tokens} tokens; got {tokens.shape[1]}. "
            "Cut it into shorter contexts."
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise ValueRangeError(
            f"Token ids must be from 0 to {vocab_size - 1}; got {low} to {high}. "
            "Use this model's own tokenizer."
        )


def check_mask(mask: Tensor, tokens: Tensor) -> None:
    """Refuse anything but padding on the right.

    Positions count from the first column, so padding on the left would move every token.

    Raises:
        ShapeError: the mask is not ``[batch token]``.
        ValueRangeError: a row begins with padding, or has tokens after it.
    """
    if mask.shape != tokens.shape[:2]:
        raise ShapeError(
            f"mask must be [batch token] like the tokens; got {list(mask.shape)} for "
            f"{list(tokens.shape)}. Give one truth value per token."
        )
    if not bool(mask[:, 0].all()) or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueRangeError(
            "mask must be True for the start of every row and False after it; got padding "
            "elsewhere. Pad on the right."
        )
