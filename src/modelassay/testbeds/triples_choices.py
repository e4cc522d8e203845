"""How often each rule chooses the code that generated an ambiguous activation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.testbeds.triples_codes import (
    Choice,
    Planted,
    ValueHistograms,
    by_cost,
    by_encoder,
)

Generating = Literal["first", "second"]
"""Whether planted pairs were generated as z = (1, 1, 0) or as z' = (1 + alpha, 0, n)."""
_SPREAD = 0.05  # of values around their peak, relative (ours)
_BROAD = 0.6  # of values that have no peak to speak of (ours)
_SEEN = 20_000  # activations on which the values' histograms are estimated (ours)
_ON = 0.05  # how often each member is on in them (ours)
_BACKGROUND = 6  # other latents on at the same time, at most (ours)


@dataclass(frozen=True, kw_only=True)
class Ambiguous:
    """Activations with two codes of the same length, and which one generated them."""

    triples: Int[Tensor, " token"]
    activations: Float[Tensor, "token d"]
    """With up to six other latents on."""
    first: Float[Tensor, "token 3"]
    """Code z in the three members."""
    second: Float[Tensor, "token 3"]
    """Code z'."""
    errors: Float[Tensor, "token 2"]
    """Squared error of each code, relative to the activation's squared length."""
    generated: Int[Tensor, " token"]
    """0 for z, 1 for z'."""


def ambiguous(
    planted: Planted, count: int, generating: Generating, generator: torch.Generator
) -> Ambiguous:
    """Planted pairs among a few other latents: 2 to 8 active in all."""
    triples = torch.randint(len(planted.alphas), (count,), generator=generator)
    alphas, norms = planted.alphas[triples], planted.norms[triples]
    peaks = planted.codes()[0 if generating == "first" else 1][triples]
    values = peaks * _around_one(peaks.shape, _SPREAD, generator)
    if generating == "first":
        first = values
        second = _columns(values[:, 0] + alphas * values[:, 1], None, norms * values[:, 1])
    else:
        second = values
        amount = values[:, 2] / norms
        first = _columns(values[:, 0] - alphas * amount, amount, None)
    rows = planted.directions.double()[planted.members[triples]]  # [token, 3, d]
    decoded = [torch.einsum("nm,nmd->nd", code.double(), rows) for code in (first, second)]
    mine = decoded[0 if generating == "first" else 1]
    background = _background(planted, count, generator)
    length = (mine + background).square().sum(1)
    errors = [(mine - other).square().sum(1) / length for other in decoded]
    return Ambiguous(
        triples=triples,
        activations=(mine + background).float(),
        first=first,
        second=second,
        errors=torch.stack(errors, 1),
        generated=torch.full((count,), 0 if generating == "first" else 1),
    )


def choices(
    planted: Planted, tokens: Ambiguous, histograms: ValueHistograms
) -> Mapping[str, Choice]:
    """What each rule picks; all know the members' codes, none which of them generated."""
    codes = (tokens.first, tokens.second)
    members = planted.members[tokens.triples]
    costs = {
        "L0 and error": tokens.errors,
        "L1": torch.stack([code.sum(1) for code in codes], 1),
        "L2": torch.stack([code.square().sum(1) for code in codes], 1),
        "MDL": torch.stack([histograms.bits(code, members) for code in codes], 1),
    }
    found = {rule: by_cost(cost) for rule, cost in costs.items()}
    return found | {"encoder": by_encoder(tokens.activations, planted.directions[members])}


def agreements(
    planted: Planted,
    generating: Generating,
    generator: torch.Generator,
    *,
    count: int = 2000,
    peaked: bool = True,
) -> Mapping[str, Mapping[str, float]]:
    """Rule -> "resolved", and the agreement with the generating code for either sign of alpha.

    Args:
        planted: the triples.
        generating: which code made the pairs.
        generator: of the activations.
        count: ambiguous activations.
        peaked: whether the members' values gather around a peak where the histograms are taken.
    """
    histograms = observed(planted, generating, generator, peaked=peaked)
    tokens = ambiguous(planted, count, generating, generator)
    positive = planted.alphas[tokens.triples] > 0
    return {
        rule: {
            "resolved": choice.resolved,
            "alpha > 0": _part(choice, positive).agreement(tokens.generated[positive]),
            "alpha < 0": _part(choice, ~positive).agreement(tokens.generated[~positive]),
        }
        for rule, choice in choices(planted, tokens, histograms).items()
    }


def observed(
    planted: Planted, generating: Generating, generator: torch.Generator, *, peaked: bool = True
) -> ValueHistograms:
    """Histograms of the members' values on activations where each comes on its own.

    A member's values lie around the value that it has in the generating code; the one that the
    code leaves out lies around its value in the other.
    """
    first, second = planted.codes()
    mine, other = (first, second) if generating == "first" else (second, first)
    peaks = torch.where(mine > 0, mine, other).flatten()
    spread = _SPREAD if peaked else _BROAD
    shape = (_SEEN, len(peaks))
    values = peaks * _around_one(shape, spread, generator)
    values = values * (torch.rand(shape, generator=generator) < _ON)
    return ValueHistograms.of(values, float(1.5 * peaks.max()))


def _part(choice: Choice, mask: Tensor) -> Choice:
    return Choice(chosen=choice.chosen[mask])


def _columns(first: Tensor, second: Tensor | None, third: Tensor | None) -> Tensor:
    zero = torch.zeros_like(first)
    return torch.stack(
        [first, zero if second is None else second, zero if third is None else third], 1
    )


def _around_one(shape: tuple[int, ...], spread: float, generator: torch.Generator) -> Tensor:
    return (1 + spread * torch.randn(shape, generator=generator)).clamp(min=0.05)


def _background(planted: Planted, count: int, generator: torch.Generator) -> Tensor:
    others = torch.arange(planted.members.numel(), len(planted.directions))
    chosen = others[torch.randint(len(others), (count, _BACKGROUND), generator=generator)]
    number = torch.randint(_BACKGROUND + 1, (count, 1), generator=generator)
    values = _around_one((count, _BACKGROUND), 0.25, generator)
    values = values * (torch.arange(_BACKGROUND) < number)
    return torch.einsum("nk,nkd->nd", values.double(), planted.directions.double()[chosen])
