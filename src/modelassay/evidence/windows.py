"""The tokens from an edit to its horizon, run again for every edit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.evidence.schedule import grouped
from modelassay.evidence.suffix import (
    KeysAndValues,
    continuing,
    keys_and_values,
    takes_keys_and_values,
)
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Downstream, Subject

_MAX_SAMPLES = 256  # samples that run at once (ours, measured)
_MAX_CONTEXTS = 512  # texts whose keys and values are kept at once (ours, measured)
_KEPT_NUMBERS = 2**26  # keys and values of a group of contexts: 256 MiB in float32 (ours)
_COPIED_NUMBERS = 2**24  # and those copied for the samples that run at once (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Tokens at which something is edited, and how far behind them one looks."""

    contexts: TokenizedCorpus
    context: Int[Tensor, " sample"]
    position: Int[Tensor, " sample"]
    horizon: int
    """Later tokens that belong to each sample's window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Some samples, each with the tokens from its own to its horizon."""

    samples: Int[Tensor, " sample"]
    inside: Bool[Tensor, "sample window"]
    """False behind the end of the text."""
    clean: dict[Site, Tensor]
    """[sample, window, d] at each site that is read."""
    rerun: Callable[[Tensor], dict[Site, Tensor]]
    """The same after an edit, [sample, d], of the activation at each sample's own token."""


def windows(
    subject: Subject, site: Site, read: tuple[Site, ...], targets: Targets
) -> Iterator[Windows]:
    """All samples' windows, some at a time.

    Nothing before an edit changes, so a model that takes keys and values runs the windows alone, on
    those of the clean text. Others run whole texts, cut behind the horizon.

    Args:
        subject: the model.
        site: where edits are added.
        read: sites to read; a run stops after the last.
        targets: the tokens.
    """
    if len(targets.context) == 0:
        return iter(())
    run = _behind_kept_tokens if takes_keys_and_values(subject) else _in_whole_texts
    return run(subject, site, read, targets)


def _behind_kept_tokens(
    subject: Subject, site: Site, read: tuple[Site, ...], targets: Targets
) -> Iterator[Windows]:
    context, position, width = targets.context, targets.position, targets.horizon + 1
    n_tokens = min(int(position.max()) + width, targets.contexts.tokens.shape[1])
    per_token = 2 * subject.n_layers * subject.d_model
    step = max(1, min(_MAX_CONTEXTS, _KEPT_NUMBERS // (per_token * n_tokens)))
    for part in context.unique().split(step):
        tokens = targets.contexts.tokens[part, :n_tokens].to(subject.device)
        mask = targets.contexts.mask[part, :n_tokens].to(subject.device)
        clean = subject.run(tokens, read=read, until=read[-1]).activations
        kept = keys_and_values(subject, tokens)
        own = torch.isin(context, part).nonzero()[:, 0]
        for start in position[own].unique().tolist():
            window = slice(start, start + width)
            at_once = max(1, min(_MAX_SAMPLES, _COPIED_NUMBERS // (per_token * (start + width))))
            for samples in own[position[own] == start].split(at_once):
                places = torch.searchsorted(part, context[samples]).to(subject.device)
                past = [(k[places, :, :start], v[places, :, :start]) for k, v in kept]
                with continuing(subject, past):
                    downstream = subject.downstream(site, tokens[places, window])
                yield Windows(
                    samples=samples,
                    inside=mask[places, window],
                    clean={each: value[places, window] for each, value in clean.items()},
                    rerun=partial(_rerun_window, subject, downstream, past, read),
                )


def _rerun_window(
    subject: Subject,
    downstream: Downstream,
    past: KeysAndValues,
    read: tuple[Site, ...],
    edit: Float[Tensor, "sample d"],
) -> dict[Site, Tensor]:
    activation = downstream.activation.clone()
    activation[:, 0] += edit
    with continuing(subject, past):
        return downstream(activation, read=read, until=read[-1]).activations


def _in_whole_texts(
    subject: Subject, site: Site, read: tuple[Site, ...], targets: Targets
) -> Iterator[Windows]:
    contexts, horizon = targets.contexts, targets.horizon
    for group in grouped(targets.context, targets.position + horizon + 1, contexts.tokens.shape[1]):
        tokens = contexts.tokens[group.contexts, : group.n_tokens].to(subject.device)
        mask = contexts.mask[group.contexts, : group.n_tokens].to(subject.device)
        downstream = subject.downstream(site, tokens, mask=mask)
        clean = downstream(downstream.activation, read=read, until=read[-1]).activations
        for each in group.rounds:
            places = each.places.to(subject.device)
            at = targets.position[each.samples].to(subject.device)
            window = at[:, None] + torch.arange(horizon + 1, device=subject.device)
            here = (places[:, None], window.clamp(max=group.n_tokens - 1))
            yield Windows(
                samples=each.samples,
                inside=(window < group.n_tokens) & mask[here],
                clean={site: value[here] for site, value in clean.items()},
                rerun=partial(_rerun_text, downstream, read, here),
            )


def _rerun_text(
    downstream: Downstream,
    read: tuple[Site, ...],
    here: tuple[Int[Tensor, "sample 1"], Int[Tensor, "sample window"]],
    edit: Float[Tensor, "sample d"],
) -> dict[Site, Tensor]:
    places, window = here
    activation = downstream.activation.clone()
    activation[places[:, 0], window[:, 0]] += edit
    found = downstream(activation, read=read, until=read[-1]).activations
    return {site: value[here] for site, value in found.items()}
