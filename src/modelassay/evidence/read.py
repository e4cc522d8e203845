"""Read: does the rest of the network react to a latent more than to any direction of its size?"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import Progress
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import firings_by_document, too_thin
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.effect_ratio import effect_ratio, ratio_evidence
from modelassay.evidence.effects import Effects, edit_effects, next_block
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import document_interval
from modelassay.evidence.interventions import Interventions, draw_interventions
from modelassay.evidence.sites import site_of
from modelassay.evidence.surrogate import random_directions
from modelassay.evidence.windows import Targets
from modelassay.subjects.subject import Subject

# What float32 rounding alone gives, so that a ratio of two noughts is 1 (ours, measured).
_KL_FLOOR = 1e-9  # nats
_CHANGE_FLOOR = 1e-4  # of the edit's norm


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
        samples_per_latent: tokens per latent, spread over as many documents as there are.
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
    context, position = harvest.rows[drawn.row].unbind(1)
    targets = Targets(
        contexts=harvest.contexts, context=context, position=position, horizon=horizon
    )
    effects = edit_effects(subject, site, targets, edits, progress)
    described = (
        f"up to {samples_per_latent} tokens, spread over held-out documents, positions below "
        f"{max_position}, effect over {horizon + 1} tokens"
    )
    with_next = next_block(subject, site) is not None
    return tuple(_evidence(drawn, effects, codes.width, described, with_next, generator))


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


def _evidence(
    drawn: Interventions,
    effects: Effects,
    width: int,
    described: str,
    with_next: bool,
    generator: torch.Generator,
) -> Iterator[Evidence]:
    n = drawn.counts(width)

    def ratio(name: str, title: str, control: str, effect: str, table: Tensor) -> Evidence:
        mine, theirs = (drawn.by_document(column, width) for column in table.unbind(1))
        found = effect_ratio(mine, theirs, generator)
        return ratio_evidence(
            found,
            name=name,
            title=title,
            control=control,
            effect=effect,
            over="documents",
            n=n,
        )

    kl = effects.kl + _KL_FLOOR
    output = f"KL(clean || edited) in nats; {described}"
    yield ratio(
        "read",
        "Read by the rest of the network",
        "a direction drawn from the activations' covariance",
        output,
        kl[:, [0, 1]],
    )
    yield ratio(
        "read_isotropic",
        "Read by the rest of the network, against isotropic directions",
        "an isotropic random direction",
        output,
        kl[:, [0, 2]],
    )
    if with_next:
        yield ratio(
            "read_next_layer",
            "Read by the next block",
            "a direction drawn from the activations' covariance",
            "the change of the next block's output beyond the edit passing through, in units of "
            f"the edit's norm; {described}",
            effects.change[:, [0, 1]] + _CHANGE_FLOOR,
        )
    sums = drawn.by_document(kl[:, 0], width)
    counts = drawn.by_document(torch.ones(len(kl)), width)
    interval = document_interval((sums, counts), torch.div, generator)
    yield Evidence(
        name="read_effect",
        title="Effect of resampling its value",
        scope="latent",
        value=(sums.sum(0) / counts.sum(0)).float(),
        low=interval.low,
        high=interval.high,
        null=(drawn.by_document(kl[:, 1], width).sum(0) / counts.sum(0)).float(),
        null_description="The same for directions of equal norm drawn from the activations' "
        "covariance, at the same tokens.",
        n=n,
        unit="nats",
        better="higher",
        definition=f"Mean {output}. n counts samples.",
        references=("lee2024",),
    )
