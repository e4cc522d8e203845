"""The visitors of which a run is made: they edit, read or stop at one site."""

from collections.abc import Callable

import torch
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.subjects.hooks import Port, Stop, Visitor
from modelassay.subjects.site import Site

Edit = Callable[[Tensor], Tensor]
"""Maps an activation to its replacement, of the same shape and dtype."""

Lead = tuple[int, ...]
"""Sizes of the batch and token axes."""


def editor(site: Site, edit: Edit, edited: set[Site], *, copy: bool) -> Visitor:
    """A visitor that replaces a site's activation.

    Args:
        site: names the activation.
        edit: gives the replacement.
        edited: where it is noted that the edit was made.
        copy: needed where the model writes into the tensor, which may be the caller's own.
    """

    def visit(value: Tensor) -> Tensor:
        _mark(site, edited)
        # The edit gets a copy: one that writes in place would reach into earlier reads.
        changed = edit(value.clone())
        if changed.shape != value.shape or changed.dtype != value.dtype:
            raise ShapeError(
                f"An edit of {site} must return {list(value.shape)} of {value.dtype}; got "
                f"{list(changed.shape)} of {changed.dtype}. Return a tensor like its argument."
            )
        return changed.clone() if copy else changed

    return visit


def mid_editor(edit: Visitor) -> tuple[Visitor, Visitor]:
    """Visitors of resid_pre and attn_out that together edit resid_mid.

    No module sees the stream where it is both read and carried on, so its change is added to the
    attention's output. An edit that changes nothing adds zero, exactly.
    """
    before: list[Tensor] = []

    def remember(resid_pre: Tensor) -> Tensor:
        before.append(resid_pre)
        return resid_pre

    def add_change(attn_out: Tensor) -> Tensor:
        resid_mid = before.pop() + attn_out
        return attn_out + (edit(resid_mid) - resid_mid)

    return remember, add_change


def reader(site: Site, activations: dict[Site, Tensor], *, copy: bool) -> Visitor:
    """A visitor that keeps a site's activation.

    Args:
        site: names the activation.
        activations: where it is kept.
        copy: needed where the model writes into the tensor, as in-place ReLUs do.
    """
    seen: set[Site] = set()

    def visit(value: Tensor) -> Tensor:
        _mark(site, seen)
        activations[site] = value.clone() if copy else value
        return value

    return visit


def tap(site: Site, activations: dict[Site, Tensor]) -> Edit:
    """An edit that changes nothing and keeps the activation, with the rest of the graph after it.

    A graph begins here if none leads here, as in a model whose weights are frozen.
    """

    def keep(value: Tensor) -> Tensor:
        if value.is_floating_point() and not value.requires_grad:
            value = value.detach().requires_grad_()
        activations[site] = value
        return value

    return keep


def stop(_value: Tensor) -> Tensor:
    """A visitor that ends the forward pass."""
    raise Stop


def shaped(port: Port, visit: Visitor, lead: Lead) -> Visitor:
    """A visitor of a tensor that the model keeps flattened, or that holds several heads.

    Args:
        port: knows the axes after batch and token.
        visit: sees the tensor with all axes.
        lead: sizes of batch and token.
    """
    if port.trailing is None:
        return visit
    shape = (*lead, *port.trailing)

    def visit_shaped(value: Tensor) -> Tensor:
        if value.shape == shape:
            return visit(value)
        return visit(value.reshape(shape)).reshape(value.shape)

    return visit_shaped


def cast(visit: Visitor, dtype: torch.dtype) -> Visitor:
    """A visitor of a tensor that the model keeps in another dtype than its activations.

    Attention weights come from a softmax in single precision, and are cast where they are used.
    """
    return lambda value: visit(value.to(dtype)).to(value.dtype)


def _mark(site: Site, done: set[Site]) -> None:
    if site in done:
        raise ValueRangeError(
            f"A site must name one tensor; got {site}, whose module runs more than once in a "
            "pass. Name a module around it."
        )
    done.add(site)
