"""Read, for models of any input: does the output react to a latent more than to its controls?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.effect_ratio import effect_ratio, ratio_evidence
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import MIN_FIRINGS
from modelassay.evidence.interventions import Interventions, draw_interventions
from modelassay.evidence.sites import site_of
from modelassay.evidence.surrogate import random_directions
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_FLOOR = 1e-9  # of the output's variance: what float32 rounding alone gives (ours)
_BATCH = 4096


@torch.no_grad()
def read_rows(
    subject: Subject,
    decomposition: Decomposition,
    codes: Codes,
    inputs: Tensor,
    *,
    latents: Int[Tensor, " chosen"] | None = None,
    samples_per_latent: int = 32,
    generator: torch.Generator,
) -> Evidence:
    """What `evidence.read` measures in language models, where each input stands for itself.

    At an input on which the latent is active, its value z becomes the value z' of a random input,
    and the activation moves by δ = (z' - z) d. The effect is the squared change of the output in
    units of the output's variance. The control moves the same activation as far in a direction
    drawn from the activations' covariance.

    Args:
        subject: the model; its output is any tensor ``[input ...]``.
        decomposition: reads and writes one site of it, ``[input d]``.
        codes: one row per input.
        inputs: held-out inputs.
        latents: which latents; all by default.
        samples_per_latent: inputs per latent.
        generator: for all draws.

    Raises:
        ShapeError: if there is not one row of codes per input.

    Reference: Lee & Heimersheim 2024 (the control); the test per latent is ours.
    """
    if codes.n_tokens != len(inputs):
        raise ShapeError(
            f"codes must have one row per input, {len(inputs)}; got {codes.n_tokens}. "
            "Encode the activations of these inputs."
        )
    site = site_of(decomposition)
    activations, outputs = _run(subject, site, inputs)
    wanted = torch.arange(codes.width) if latents is None else latents
    enough = codes.firing_counts()[wanted] >= MIN_FIRINGS
    drawn = draw_interventions(
        codes,
        torch.arange(len(inputs)),
        torch.ones(len(inputs), dtype=torch.bool),
        wanted[enough],
        samples_per_latent,
        generator,
    )
    edit = drawn.change[:, None] * decomposition.directions.detach().float()[drawn.latent]
    covariance = torch.cov(activations.T, correction=0).float()
    control = edit.norm(dim=1, keepdim=True) * random_directions(len(edit), covariance, generator)
    variance = (outputs - outputs.mean(0)).square().sum(1).mean()
    effects = [
        _effects(subject, site, inputs, outputs, drawn.row, each) / variance + _FLOOR
        for each in (edit, control)
    ]
    # Every input is a document of its own; a latent's samples are numbered 0, 1, ….
    mine, theirs = (_by_turn(drawn, each, codes.width) for each in effects)
    return ratio_evidence(
        effect_ratio(mine, theirs, generator),
        name="read",
        title="Read by the rest of the network",
        control="a direction drawn from the activations' covariance",
        effect="the squared change of the output in units of its variance",
        over="inputs",
        n=drawn.counts(codes.width),
    )


def _run(
    subject: Subject, site: Site, inputs: Tensor
) -> tuple[Float[Tensor, "input d"], Float[Tensor, "input output"]]:
    """The site and the flattened output on some inputs."""
    activations: list[Tensor] = []
    outputs: list[Tensor] = []
    for batch in inputs.split(_BATCH):
        run = subject.run(batch, read=[site])
        assert run.logits is not None
        activations.append(run.activations[site].clone())
        outputs.append(run.logits.flatten(1))
    return torch.cat(activations), torch.cat(outputs)


def _effects(
    subject: Subject,
    site: Site,
    inputs: Tensor,
    outputs: Float[Tensor, "input output"],
    rows: Int[Tensor, " sample"],
    edits: Float[Tensor, "sample d"],
) -> Float[Tensor, " sample"]:
    """Squared change of the output after each edit of the site at its row."""
    found: list[Tensor] = [torch.zeros(0)]
    for part, edit in zip(rows.split(_BATCH), edits.split(_BATCH), strict=True):
        run = subject.run(inputs[part], edit={site: lambda clean, edit=edit: clean + edit})
        assert run.logits is not None
        found.append((run.logits.flatten(1) - outputs[part]).square().sum(1))
    return torch.cat(found)


def _by_turn(
    drawn: Interventions, values: Float[Tensor, " sample"], width: int
) -> Float[Tensor, "turn latent"]:
    """The samples of each latent in a column, 0 where there are no more."""
    counts = drawn.counts(width)
    first = counts.cumsum(0) - counts
    order = drawn.latent.argsort(stable=True)
    turn = torch.arange(len(order)) - first[drawn.latent[order]]
    table = torch.zeros(max(1, int(counts.max())), width, dtype=torch.float64)
    table[turn, drawn.latent[order]] = values[order].double()
    return table
