"""Visible variance, for models of any input: how much of a latent's variance moves the output?"""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import (
    MIN_FIRINGS,
    document_interval,
)
from modelassay.evidence.sites import site_of
from modelassay.evidence.surrogate import random_directions
from modelassay.subjects.subject import Subject

_DRAWS = 8  # random sums of the outputs whose gradients are taken (ours)
_NULL_DIRECTIONS = 256  # (ours)
_GROUPS = 100  # of inputs, which the bootstrap resamples instead of single ones (ours)


def visible_rows(
    subject: Subject,
    decomposition: Decomposition,
    codes: Codes,
    inputs: Tensor,
    *,
    generator: torch.Generator,
) -> Evidence:
    """What `evidence.visible` measures in language models, for an output with unit noise.

    With the Jacobian J of the output, the Fisher matrix of a Gaussian output is ``J^T J``. A
    latent's visible variance is ``E[(z - mean z)² |J d|²] / (Var(z) |d|²)``, told in units of
    the same ratio of a direction drawn by the activations' covariance Σ, ``tr(J Σ J^T) / tr Σ``.
    ``|J d|²`` is estimated by ``(g . d)²`` with gradients g of random signed sums of the outputs.

    Args:
        subject: the model; its output is any tensor ``[input ...]``.
        decomposition: reads and writes one site of it, ``[input d]``.
        codes: one row per input.
        inputs: held-out inputs.
        generator: for all draws.

    Raises:
        ShapeError: if there is not one row of codes per input.
    """
    if codes.n_tokens != len(inputs):
        raise ShapeError(
            f"codes must have one row per input, {len(inputs)}; got {codes.n_tokens}. "
            "Encode the activations of these inputs."
        )
    activations, gradients = _gradients(subject, decomposition, inputs, generator)
    covariance = torch.cov(activations.T, correction=0).float()
    unit = (
        torch.einsum("grd,de,gre->r", gradients, covariance, gradients) / _DRAWS
    ).double() / covariance.trace()
    values = codes.dense().detach().float()
    value, sums = _ratio(values, decomposition.directions.detach().float(), gradients, unit)
    random = random_directions(_NULL_DIRECTIONS, covariance, generator)
    centred = activations - activations.mean(0)
    null, _ = _ratio(centred @ random.T, random, gradients, unit)
    interval = document_interval(sums, _share, generator)
    thin = codes.firing_counts() < MIN_FIRINGS
    return Evidence(
        name="visible_variance",
        title="Variance that the output sees",
        scope="latent",
        value=value.masked_fill(thin, torch.nan),
        low=interval.low.masked_fill(thin, torch.nan),
        high=interval.high.masked_fill(thin, torch.nan),
        null=torch.full_like(value, float(null.median())),
        null_description="The same for directions drawn from the activations' covariance (median "
        f"of {_NULL_DIRECTIONS}).",
        n=codes.firing_counts(),
        unit="times a covariance-drawn direction",
        better="higher",
        definition="E[(z - mean z)² |J d|²] / (Var(z) |d|²) / (tr(J Σ J^T) / tr Σ), with the "
        "Jacobian J of the output at each input and the activations' covariance Σ. n counts "
        "inputs on which the latent is active.",
        references=("chughtai2025",),
    )


def _gradients(
    subject: Subject, decomposition: Decomposition, inputs: Tensor, generator: torch.Generator
) -> tuple[Float[Tensor, "input d"], Float[Tensor, "draw input d"]]:
    """The site on the inputs, and gradients there of random signed sums of the outputs."""
    downstream = subject.downstream(site_of(decomposition), inputs)
    activation = downstream.activation.detach().clone().requires_grad_()
    output = downstream(activation, gradients=True).logits
    assert output is not None
    flat = output.flatten(1)
    drawn: list[Tensor] = []
    for _ in range(_DRAWS):
        signs = torch.randint(0, 2, flat.shape, generator=generator).to(flat) * 2 - 1
        (gradient,) = torch.autograd.grad((flat * signs).sum(), activation, retain_graph=True)
        drawn.append(gradient)
    return activation.detach(), torch.stack(drawn)


def _ratio(
    values: Float[Tensor, "input latent"],
    directions: Float[Tensor, "latent d"],
    gradients: Float[Tensor, "draw input d"],
    unit: Float[Tensor, " input"],
) -> tuple[Float[Tensor, " latent"], tuple[Tensor, ...]]:
    """Visible over Euclidean variance in units of the data's, and the sums behind it by group."""
    seen = torch.zeros_like(values)
    for gradient in gradients:
        seen += (gradient @ directions.T).square() / len(gradients)
    centred = values - values.mean(0)
    squared_norm = directions.square().sum(1)
    group = torch.arange(len(values)) % min(_GROUPS, len(values))
    columns = (centred.square() * seen, centred.square() * squared_norm, unit[:, None])
    sums = tuple(
        torch.zeros(int(group.max()) + 1, column.shape[1], dtype=torch.float64).index_add_(
            0, group, column.double()
        )
        for column in (*columns, torch.ones(len(values), 1))
    )
    return _share(*(s.sum(0, keepdim=True) for s in sums))[0].float(), sums


def _share(seen: Tensor, euclidean: Tensor, unit: Tensor, count: Tensor) -> Tensor:
    return seen / euclidean / (unit / count)
