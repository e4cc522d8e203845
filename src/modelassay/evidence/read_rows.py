"""Read, for models of any input: does the output react to a latent more than to its controls?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import (
    MIN_FIRINGS,
    false_discovery_q_values,
    pseudo_median,
    signed_rank_p_values,
)
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
    logs = [
        (_effects(subject, site, inputs, outputs, drawn.row, each) / variance + _FLOOR).log()
        for each in (edit, control)
    ]
    table = _by_latent(drawn, logs[0] - logs[1], codes.width)
    centre, interval = pseudo_median(table)
    p_values = signed_rank_p_values(table)
    return Evidence(
        name="read",
        title="Read by the rest of the network",
        scope="latent",
        value=centre,
        low=interval.low,
        high=interval.high,
        null=torch.zeros_like(centre),
        null_description="The latent has the effect of a direction drawn from the activations' "
        "covariance, of equal norm and at the same input: log ratio 0.",
        p_value=p_values,
        q_value=false_discovery_q_values(p_values),
        n=drawn.counts(codes.width),
        unit="log ratio",
        better="higher",
        definition="Centre (Hodges-Lehmann) over sampled inputs of log(effect of resampling the "
        "latent's value / effect of a covariance-drawn direction of equal norm); the effect is the "
        "squared change of the output in units of its variance. The p-value is two-sided (Wilcoxon "
        "signed rank); n counts inputs.",
        references=("lee2024", "wilcoxon1945", "benjamini1995"),
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


def _by_latent(
    drawn: Interventions, values: Float[Tensor, " sample"], width: int
) -> Float[Tensor, "latent turn"]:
    """The samples of each latent in a row, NaN where there are none."""
    counts = drawn.counts(width)
    first = counts.cumsum(0) - counts
    order = drawn.latent.argsort(stable=True)
    place = torch.arange(len(order)) - first[drawn.latent[order]]
    table = torch.full((width, max(1, int(counts.max()))), torch.nan)
    table[drawn.latent[order], place] = values[order].float()
    return table
