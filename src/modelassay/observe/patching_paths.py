"""Path patching: the effect of one part on another, or on the answer, by the direct path alone.

A sender takes its value from the source's run while everything between it and the receiver keeps
the target's values, so that the change reaches the receiver through the residual stream only. Then
the receiver alone is set to what it saw, in an otherwise unchanged run. Without a receiver it is
the logits, and the effect is the sender's own, not that of later layers that react to it.

In a model whose blocks add to one stream, the changes that all senders make to a later stream sum
exactly to its whole change (the embeddings are senders too).

Reference: Wang et al. 2022, "Interpretability in the wild"; Goldowsky-Dill et al. 2023, "Localizing
model behavior with path patching".
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.observe.mediation import carrying
from modelassay.observe.patching import Direction, Effects, check_parts, collected
from modelassay.observe.patching_columns import Column, chunks, columns_for
from modelassay.observe.patching_pairs import (
    Measure,
    PromptPairs,
    logit_difference,
    measured_last,
)
from modelassay.observe.patching_parts import Part, masked
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.visitors import Edit

_INSIDE = {
    "attn_in": "attn_out",
    "attn_pattern": "attn_out",
    "head_out": "attn_out",
    "mlp_in": "mlp_out",
    "mlp_hidden": "mlp_out",
}
"""Sender inside a branch -> the branch's own output, through which it is sent."""


@torch.no_grad()
def patch_paths(
    subject: Subject,
    pairs: PromptPairs,
    senders: Sequence[Part],
    receiver: Site | None = None,
    *,
    columns: Sequence[Column] | None = None,
    measure: Measure = logit_difference,
    direction: Direction = "denoising",
    batch_pairs: int = 64,
) -> Effects:
    """Effects of senders on the measure by the direct path to a receiver.

    Args:
        subject: a verified language model.
        pairs: prompts in two versions.
        senders: parts of a branch (heads, MLPs, latents at their outputs) or of an early stream.
        receiver: the site that the path leads to, at all positions; None for the logits.
        columns: at which positions senders are carried over; one a position by default.
        measure: from the logits after the last token to a number for each pair.
        direction: as for `patch`.
        batch_pairs: pairs that the model reads at a time.

    Raises:
        ValueRangeError: a sender is not before the receiver, or a site is a module port.
        UnknownNameError: an unknown site.
        UnsupportedModelError: a model without roles.
    """
    check_parts(subject, senders)
    columns = columns_for(subject, pairs, columns)
    between = {part.name: sites_between(subject, part.site, receiver) for part in senders}
    tables: list[Tensor] = []
    ends: list[tuple[Tensor, Tensor]] = []
    for chunk, masks in chunks(pairs, columns, batch_pairs):
        source_tokens, target_tokens = chunk.clean, chunk.corrupt
        if direction == "noising":
            source_tokens, target_tokens = target_tokens, source_tokens
        read = sorted({site for found in between.values() for site in found})
        kept = subject.run(target_tokens, read=read)
        sent = subject.run(source_tokens, read=[part.site for part in senders])
        target = measured_last(kept.logits, chunk, measure)
        rows: list[Tensor] = []
        for part in senders:
            frozen = {site: _constant(kept.activations[site]) for site in between[part.name]}
            cells: list[Tensor] = []
            for mask in masks:
                edits = frozen | carrying([part], sent.activations, mask)
                logits = _through(subject, target_tokens, edits, receiver)
                cells.append(measured_last(logits, chunk, measure) - target)
            rows.append(torch.stack(cells))
        tables.append(torch.stack(rows))
        ends.append((measured_last(sent.logits, chunk, measure), target))
    to = "logits" if receiver is None else str(receiver)
    return collected(f"path patching to {to}", direction, senders, columns, tables, ends, pairs)


@torch.no_grad()
def received(
    subject: Subject,
    pairs: PromptPairs,
    sender: Part,
    receiver: Site,
    *,
    column: Column,
) -> Float[Tensor, "pair token ..."]:
    """Change of the receiver when the sender is carried over from clean to corrupt, directly."""
    check_parts(subject, [sender])
    between = sites_between(subject, sender.site, receiver)
    kept = subject.run(pairs.corrupt, read=[*between, receiver]).activations
    sent = subject.run(pairs.clean, read=[sender.site], until=sender.site).activations
    edits = {site: _constant(kept[site]) for site in between}
    edits |= carrying([sender], sent, column.mask & pairs.real)
    seen = subject.run(pairs.corrupt, edit=edits, read=[receiver]).activations[receiver]
    return masked(receiver, pairs.real, seen - kept[receiver], torch.zeros_like(seen))


def sites_between(subject: Subject, sender: Site, receiver: Site | None) -> tuple[Site, ...]:
    """Outputs of attention and MLP after the sender and before the receiver.

    Raises:
        ValueRangeError: the sender is not before the receiver, or one is a module port.
    """
    receiver = None if receiver is None else subject.resolve(receiver)
    ports = sender.is_module_port or (receiver is not None and receiver.is_module_port)
    if ports or (receiver is not None and not sender < receiver):
        raise ValueRangeError(
            "A path must lead from a role to a later role, or to the logits; got "
            f"{sender} -> {receiver}. Swap them, or name roles."
        )
    own = Site(_INSIDE[sender.role], sender.layer) if sender.role in _INSIDE else None
    branches = [
        Site(role, layer) for layer in range(subject.n_layers) for role in ("attn_out", "mlp_out")
    ]
    return tuple(
        site
        for site in branches
        if sender < site and site != own and (receiver is None or site < receiver)
    )


def _through(
    subject: Subject, tokens: Tensor, edits: dict[Site, Edit], receiver: Site | None
) -> Tensor | None:
    if receiver is None:
        return subject.run(tokens, edit=edits).logits
    seen = subject.run(tokens, edit=edits, read=[receiver], until=receiver).activations[receiver]
    return subject.run(tokens, edit={receiver: _constant(seen)}).logits


def _constant(value: Tensor) -> Edit:
    return lambda _current: value
