"""Directions that a Jacobian lens gives to tokens, and edits of the stream along them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.observe.lenses.jacobian import JacobianLens
from modelassay.observe.lenses.lens import check_depth
from modelassay.subjects.subject import Subject
from modelassay.subjects.visitors import Edit


def token_directions(
    subject: Subject, lens: JacobianLens, tokens: Int[Tensor, " chosen"], depth: int
) -> Float[Tensor, "chosen d_model"]:
    """Rows of ``W_U J_l``: to first order, the direction at a depth that raises a token's logit.

    Raises:
        ValueRangeError: the model has no such depth or token.
        ProvenanceError: a lens of another model.
    """
    lens.check(subject)
    check_depth(depth, lens.n_layers)
    if bool(((tokens < 0) | (tokens >= subject.vocab_size)).any()):
        raise ValueRangeError(
            f"Token ids must be from 0 to {subject.vocab_size - 1}; got {tokens.tolist()}. "
            "Use this model's own tokenizer."
        )
    rows = subject.unembedding().T[tokens.to(subject.device)].float()
    return rows if depth == lens.n_layers else rows @ lens.jacobian[depth].to(rows)


def added(direction: Float[Tensor, " d_model"], strength: float) -> Edit:
    """An edit that adds ``strength · |h|`` along the direction, at every token.

    The size goes with the stream's own (ours), because streams grow from block to block.
    """
    unit = _unit(direction)
    return lambda resid: resid + strength * resid.norm(dim=-1, keepdim=True) * unit.to(resid)


def ablated(directions: Float[Tensor, "chosen d_model"]) -> Edit:
    """An edit that takes the stream's component in the span of some directions away."""
    basis = torch.linalg.qr(_rows(directions).T).Q

    def edit(resid: Tensor) -> Tensor:
        span = basis.to(resid)
        return resid - (resid @ span) @ span.T

    return edit


def swapped(first: Float[Tensor, " d_model"], second: Float[Tensor, " d_model"]) -> Edit:
    """An edit that exchanges the stream's coordinates along two directions.

    The coordinates are those of the least-squares fit by both, so that whatever lies outside
    their plane stays as it is, and swapping twice changes nothing.

    Raises:
        ShapeError: directions of different widths.
        ValueRangeError: one of zero length, or both on one line.
    """
    if first.shape != second.shape:
        raise ShapeError(
            f"Two directions must have one width; got {list(first.shape)} and "
            f"{list(second.shape)}. Take both from the same depth."
        )
    plane = torch.stack([_unit(first), _unit(second)])
    if float((plane[0] @ plane[1]).abs()) > 1 - 1e-6:
        raise ValueRangeError(
            "Directions to swap must not lie on one line; got a cosine of "
            f"{float(plane[0] @ plane[1]):.6f}. Choose two tokens with other directions."
        )
    dual = torch.linalg.pinv(plane)

    def edit(resid: Tensor) -> Tensor:
        coordinates = resid @ dual.to(resid)
        return resid + (coordinates.flip(-1) - coordinates) @ plane.to(resid)

    return edit


def _unit(direction: Tensor) -> Tensor:
    return _rows(direction[None])[0]


def _rows(directions: Tensor) -> Tensor:
    lengths = directions.float().norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()) or not bool(lengths.isfinite().all()):
        raise ValueRangeError(
            f"A direction must have a finite length above 0; got {lengths[:, 0].tolist()}. "
            "Look whether the lens maps it to nothing."
        )
    return directions.float() / lengths
