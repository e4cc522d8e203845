"""What edits of single activations do to the next block and to the predictions."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.progress import Progress, default_progress
from modelassay.evidence.predictions import kl_nats, log_predictions
from modelassay.evidence.schedule import Group, grouped
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_RESIDUAL_ROLES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Effects of several edits at each sample's token."""

    kl: Float[Tensor, "sample edit"]
    """KL(clean || edited), summed over the token and the horizon, in nats."""
    change: Float[Tensor, "sample edit"]
    """Change of the next block's output beyond the edit passing through, over the token and the
    horizon, in units of the edit's norm; 0 where there is no next block."""


def edit_effects(
    subject: Subject,
    site: Site,
    contexts: TokenizedCorpus,
    context: Int[Tensor, " sample"],
    position: Int[Tensor, " sample"],
    edits: Float[Tensor, "edit sample d"],
    horizon: int,
    progress: Progress | None = None,
) -> Effects:
    """Add each edit to the activation at its sample's token, one at a time, and look behind it.

    Args:
        subject: the model.
        site: where the activation stands.
        contexts: the texts.
        context: of each sample.
        position: of the edited token.
        edits: what is added.
        horizon: how many later tokens count.
        progress: where to report.
    """
    kl = torch.zeros(len(context), len(edits))
    change = torch.zeros_like(kl)
    groups = grouped(context, position + horizon + 1, contexts.tokens.shape[1])
    with (progress or default_progress()).task(
        "Read test", total=len(context), unit="samples"
    ) as task:
        for group in groups:
            for samples, found in _run(subject, site, contexts, group, position, edits, horizon):
                kl[samples], change[samples] = found.kl, found.change
                task.advance(len(samples))
    return Effects(kl=kl, change=change)


def next_block(subject: Subject, site: Site) -> Site | None:
    """The first block output after a residual-stream site that some computation stands before."""
    if site.role not in _RESIDUAL_ROLES:
        return None
    # After mlp_out the rest of the block only adds; the next reader is the next block.
    layer = site.layer if site.role in ("resid_pre", "resid_mid") else site.layer + 1
    return Site("resid_post", layer) if layer < subject.n_layers else None


def _run(
    subject: Subject,
    site: Site,
    contexts: TokenizedCorpus,
    group: Group,
    position: Int[Tensor, " sample"],
    edits: Float[Tensor, "edit sample d"],
    horizon: int,
) -> Iterator[tuple[Int[Tensor, " turn"], Effects]]:
    """The samples of each round with their effects; prefix and clean pass are computed once."""
    tokens = contexts.tokens[group.contexts, : group.n_tokens].to(subject.device)
    mask = contexts.mask[group.contexts, : group.n_tokens].to(subject.device)
    downstream = subject.downstream(site, tokens, mask=mask)
    last = Site("resid_post", subject.n_layers - 1)
    beyond = next_block(subject, site)
    sites = list({last, beyond or last})
    clean = downstream(downstream.activation, read=sites, until=last).activations
    for each in group.rounds:
        samples, places = each.samples, each.places.to(subject.device)
        at = position[samples].to(subject.device)
        window = at[:, None] + torch.arange(horizon + 1, device=subject.device)
        inside = window < group.n_tokens
        window = window.clamp(max=group.n_tokens - 1)
        here = (places[:, None], window)
        inside &= mask[here]
        log_p = log_predictions(subject, clean[last][here])
        effects = torch.zeros(2, len(samples), len(edits))
        for number, edit in enumerate(edits[:, samples].to(downstream.activation)):
            activation = downstream.activation.clone()
            activation[places, at] += edit
            edited = downstream(activation, read=sites, until=last).activations
            kl = kl_nats(log_p, log_predictions(subject, edited[last][here]))
            effects[0, :, number] = (kl * inside).sum(1).cpu()
            if beyond is not None:
                moved = (edited[beyond] - clean[beyond])[here] * inside[..., None]
                moved[:, 0] -= edit
                effects[1, :, number] = (moved.flatten(1).norm(dim=1) / edit.norm(dim=1)).cpu()
        yield samples, Effects(kl=effects[0], change=effects[1])
