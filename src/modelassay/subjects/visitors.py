"""The visitors of which a run is made: they edit, read or stop at a site."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.subjects.hooks import Port, Stop, Visitor
from modelassay.subjects.site import Site
from modelassay.subjects.structure import Structure

Edit = Callable[[Tensor], Tensor]
"""Maps an activation to its replacement, of the same shape and dtype."""

Lead = tuple[int, ...]
"""Sizes of the batch and token axes."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where one run finds the tensors that its sites name."""

    structure: Structure | None
    """None for a general module, which has module ports only."""
    dtype: torch.dtype
    """Of the model's activations."""
    lead: Lead

    def port(self, site: Site) -> Port:
        """The port at which a site is read."""
        if site.is_module_port:
            return Port(site.path, "in" if site.port == "in" else "out")
        assert self.structure is not None
        return self.structure.port(site.role, site.layer)

    def reading(
        self, sites: Iterable[Site], activations: dict[Site, Tensor]
    ) -> list[tuple[Port, Visitor]]:
        """Visitors that keep activations."""
        visitors: list[tuple[Port, Visitor]] = []
        for site in sites:
            visit = reader(site, activations, copy=self._is_overwritten(site))
            visitors.append((port := self.port(site), shaped(port, visit, self.lead)))
        return visitors

    def editing(self, edits: Mapping[Site, Edit], edited: set[Site]) -> list[tuple[Port, Visitor]]:
        """Visitors that make edits, and note which were made."""
        visitors: list[tuple[Port, Visitor]] = []
        # A change of resid_mid is added to attn_out, whose own edit comes first.
        for site in sorted(edits, key=lambda site: site.role == "resid_mid"):
            visit = editor(site, edits[site], edited, copy=self._is_overwritten(site))
            port = self.port(site)
            if site.role == "attn_pattern":
                # The module returns its weights after using them, so they change at the softmax.
                port, visit = Port(port.path, "softmax"), cast(visit, self.dtype)
            elif site.role == "resid_mid":
                remember, visit = mid_editor(visit)
                visitors.append((self.port(Site("resid_pre", site.layer)), remember))
                port = self.port(Site("attn_out", site.layer))
            visitors.append((port, shaped(port, visit, self.lead)))
        return visitors

    def _is_overwritten(self, site: Site) -> bool:
        """Whether the model may write into the tensor after the site."""
        return self.structure is None or site.role not in self.structure.kept


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
