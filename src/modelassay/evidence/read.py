"""Read: does the rest of the network react to a latent more than to any direction of its size?"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import Harvest
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import Progress, default_progress
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import firings_by_document, too_thin
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import (
    false_discovery_q_values,
    median_interval,
    signed_rank_p_values,
)
from modelassay.evidence.interventions import Interventions, draw_interventions
from modelassay.evidence.predictions import kl_nats, log_predictions
from modelassay.evidence.schedule import Group, grouped
from modelassay.evidence.sites import site_of
from modelassay.evidence.surrogate import random_directions
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

# What float32 rounding alone gives, so that a ratio of two noughts is 1 (ours, measured).
_KL_FLOOR = 1e-9  # nats
_CHANGE_FLOOR = 1e-4  # of the edit's norm
_RESIDUAL_ROLES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Effects of the latent's edit and of its two controls, in this order."""

    kl: Float[Tensor, "sample edit"]
    """KL(clean || edited), summed over the token and the horizon, in nats."""
    change: Float[Tensor, "sample edit"]
    """Change of the next block's output beyond the edit itself, in units of the edit's norm."""


@torch.no_grad()
def read(
    subject: Subject,
    decomposition: Decomposition,
    codes: Codes,
    harvest: Harvest,
    *,
    latents: Int[Tensor, " chosen"] | None = None,
    samples_per_latent: int = 16,
    horizon: int = 8,
    max_position: int = 128,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> tuple[Evidence, ...]:
    """Effect of resampling a latent's value, against directions of the same norm.

    At a held-out token where the latent fires, its value z becomes the value z' of a random token,
    and the activation moves by δ = (z' - z) d. The effect is KL(clean || edited), summed over that
    token and the `horizon` after it. The controls move the same activation by as much: in a
    direction drawn from the activations' covariance, and in an isotropic one.

    Args:
        subject: the model.
        decomposition: reads and writes one site of it.
        codes: held-out codes, one row per row of `harvest`.
        harvest: the held-out harvest of that site.
        latents: which latents; all by default.
        samples_per_latent: tokens per latent, of as many different documents.
        horizon: later tokens whose predictions count as well.
        max_position: only tokens before this position are chosen, which bounds the cost. The left
            context is never cut.
        generator: for all draws.
        progress: where to report.

    Returns:
        `read` (log effect ratio to the covariance control, on the output), `read_isotropic` (to the
        isotropic control), `read_effect` (KL in nats beside the control's) and, unless the site is
        the last or lies outside the residual stream, `read_next_layer` (log ratio of the change of
        the next block's output beyond the edit passing through).

    Reference: Lee & Heimersheim 2024 (the control); the test per latent is ours.
    """
    site = site_of(decomposition)
    if codes.width != decomposition.width or codes.n_tokens != len(harvest.rows):
        raise ValueRangeError(
            f"codes must be those of {decomposition.name} on the harvest, "
            f"{len(harvest.rows)} x {decomposition.width}; got {codes.n_tokens} x {codes.width}. "
            "Encode the held-out activations."
        )
    document = document_of_row(harvest)
    thin = too_thin(firings_by_document(codes, document))
    wanted = torch.arange(codes.width) if latents is None else latents
    drawn = draw_interventions(
        codes,
        document,
        harvest.rows[:, 1] < max_position,
        wanted[~thin[wanted]],
        samples_per_latent,
        generator,
    )
    edits = _edits(decomposition, drawn, harvest.moments(site).covariance, generator)
    effects = _measure(subject, site, harvest, drawn, edits, horizon, progress)
    described = (
        f"{samples_per_latent} tokens of different held-out documents, positions below "
        f"{max_position}, effect over {horizon + 1} tokens"
    )
    with_next = next_block(subject, site) is not None
    return tuple(_evidence(drawn, effects, codes.width, described, with_next, generator))


def next_block(subject: Subject, site: Site) -> Site | None:
    """The first block output after a residual-stream site that some computation stands before."""
    if site.role not in _RESIDUAL_ROLES:
        return None
    # After mlp_out the rest of the block only adds; the next reader is the next block.
    layer = site.layer if site.role in ("resid_pre", "resid_mid") else site.layer + 1
    return Site("resid_post", layer) if layer < subject.n_layers else None


def _edits(
    decomposition: Decomposition,
    drawn: Interventions,
    covariance: Float[Tensor, "d d"],
    generator: torch.Generator,
) -> Float[Tensor, "edit sample d"]:
    """The latent's edit, a covariance-drawn one and an isotropic one, of equal norms."""
    latent = drawn.change[:, None] * decomposition.directions.detach().float().cpu()[drawn.latent]
    norm = latent.norm(dim=1, keepdim=True)
    isotropic = torch.eye(len(covariance))
    controls = [
        norm * random_directions(len(latent), matrix, generator)
        for matrix in (covariance, isotropic)
    ]
    return torch.stack([latent, *controls])


def _measure(
    subject: Subject,
    site: Site,
    harvest: Harvest,
    drawn: Interventions,
    edits: Float[Tensor, "edit sample d"],
    horizon: int,
    progress: Progress | None,
) -> Effects:
    context, position = harvest.rows[drawn.row].unbind(1)
    kl = torch.zeros(len(drawn.row), len(edits))
    change = torch.zeros_like(kl)
    groups = grouped(context, position + horizon + 1, harvest.contexts.tokens.shape[1])
    with (progress or default_progress()).task(
        "Read test", total=len(drawn.row), unit="samples"
    ) as task:
        for group in groups:
            for samples, found in _run_group(
                subject, site, harvest.contexts, group, position, edits, horizon
            ):
                kl[samples], change[samples] = found.kl, found.change
                task.advance(len(samples))
    return Effects(kl=kl, change=change)


def _run_group(
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
    for samples, places in group.rounds:
        at = position[samples].to(subject.device)
        window = at[:, None] + torch.arange(horizon + 1, device=subject.device)
        inside = window < group.n_tokens
        window = window.clamp(max=group.n_tokens - 1)
        here = (places[:, None].to(subject.device), window)
        inside &= mask[here]
        log_p = log_predictions(subject, clean[last][here])
        effects = torch.zeros(2, len(samples), len(edits))
        for number, edit in enumerate(edits[:, samples].to(downstream.activation)):
            activation = downstream.activation.clone()
            activation[here[0][:, 0], at] += edit
            edited = downstream(activation, read=sites, until=last).activations
            kl = kl_nats(log_p, log_predictions(subject, edited[last][here]))
            effects[0, :, number] = (kl * inside).sum(1).cpu()
            if beyond is not None:
                moved = (edited[beyond] - clean[beyond])[here] * inside[..., None]
                moved[:, 0] -= edit
                effects[1, :, number] = (moved.flatten(1).norm(dim=1) / edit.norm(dim=1)).cpu()
        yield samples, Effects(kl=effects[0], change=effects[1])


def _evidence(
    drawn: Interventions,
    effects: Effects,
    width: int,
    described: str,
    with_next: bool,
    generator: torch.Generator,
) -> Iterator[Evidence]:
    latent, covariance, isotropic = (effects.kl + _KL_FLOOR).log().unbind(1)
    output = f"KL(clean || edited) in nats; {described}"
    yield _ratio(
        "read",
        "Read by the rest of the network",
        "a direction drawn from the activations' covariance",
        output,
        drawn.table(latent - covariance, width),
        generator,
    )
    yield _ratio(
        "read_isotropic",
        "Read by the rest of the network, against isotropic directions",
        "an isotropic random direction",
        output,
        drawn.table(latent - isotropic, width),
        generator,
    )
    if with_next:
        latent, covariance, _ = (effects.change + _CHANGE_FLOOR).log().unbind(1)
        yield _ratio(
            "read_next_layer",
            "Read by the next block",
            "a direction drawn from the activations' covariance",
            "the change of the next block's output beyond the edit passing through, in units of "
            f"the edit's norm; {described}",
            drawn.table(latent - covariance, width),
            generator,
        )
    table = drawn.table(effects.kl[:, 0], width)
    median, interval = median_interval(table, generator)
    null, _ = median_interval(drawn.table(effects.kl[:, 1], width), generator)
    yield Evidence(
        name="read_effect",
        title="Effect of resampling its value",
        scope="latent",
        value=median,
        low=interval.low,
        high=interval.high,
        null=null,
        null_description="The same for directions of equal norm drawn from the activations' "
        "covariance, at the same tokens.",
        n=(~table.isnan()).sum(1),
        unit="nats",
        better="higher",
        definition=f"Median {output}; n counts samples.",
        references=("lee2024",),
    )


def _ratio(
    name: str,
    title: str,
    control: str,
    effect: str,
    table: Float[Tensor, "latent slot"],
    generator: torch.Generator,
) -> Evidence:
    median, interval = median_interval(table, generator)
    p_values = signed_rank_p_values(table)
    return Evidence(
        name=name,
        title=title,
        scope="latent",
        value=median,
        low=interval.low,
        high=interval.high,
        null=torch.zeros_like(median),
        null_description=f"The latent has the effect of {control}, of equal norm and at the same "
        "token: log ratio 0.",
        p_value=p_values,
        q_value=false_discovery_q_values(p_values),
        n=(~table.isnan()).sum(1),
        unit="log ratio",
        better="higher",
        definition="Median over samples of log(effect of resampling the latent's value / effect "
        f"of {control}), where the effect is {effect}. The p-value is two-sided (Wilcoxon signed "
        "rank); the one-sided p-value on the side of the estimate is half of it. n counts "
        "samples.",
        references=("lee2024", "wilcoxon1945", "benjamini1995"),
    )
