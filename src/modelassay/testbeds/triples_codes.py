"""Planted triples, and the rules that choose between their two codes.

With ``f3 = (f2 - alpha f1) / n`` of unit length, ``n = |f2 - alpha f1|``::

    z = (1, 1, 0)   and   z' = (1 + alpha, 0, n)

decode to the same activation with two active latents each. Of the rules that could choose::

    L0, error    equal: no choice
    L1           z iff alpha + n > 1: for alpha > 0, never for -1 < alpha < 0
    L2           z iff 1 + 1 < (1 + alpha)^2 + n^2
    MDL          the smaller  -sum_{i on} log2 p_i P_i(z_i) - sum_{i off} log2(1 - p_i)
    encoder      the two latents of the three with the largest f_i . x
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.recipes import unit_rows

_BIN = 0.1  # width of the bins of the values' histograms (ours)
_TIE = 1e-4  # costs closer than this, relative to their size, choose nothing (ours)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A random dictionary in which some directions are made of two others."""

    directions: Float[Tensor, "latent d"]
    members: Int[Tensor, "triple 3"]
    alphas: Float[Tensor, " triple"]

    @property
    def norms(self) -> Float[Tensor, " triple"]:
        """``n = |f2 - alpha f1|``."""
        first, second = (self.directions[self.members[:, i]] for i in (0, 1))
        return (second - self.alphas[:, None] * first).norm(dim=1)

    def codes(self) -> tuple[Float[Tensor, "triple 3"], Float[Tensor, "triple 3"]]:
        """z and z' of every triple, in the values of its three members."""
        one, zero = torch.ones_like(self.alphas), torch.zeros_like(self.alphas)
        return (
            torch.stack([one, one, zero], 1),
            torch.stack([1 + self.alphas, zero, self.norms], 1),
        )


def plant(
    alphas: Float[Tensor, " triple"], *, width: int, d: int, generator: torch.Generator
) -> Planted:
    """A dictionary of random unit directions; its first rows are the triples.

    Raises:
        ValueRangeError: if an alpha is not above -1 (z' would be negative), or if there are more
            members than latents.
    """
    if float(alphas.min()) <= -1:
        raise ValueRangeError(
            f"alpha must be above -1; got {float(alphas.min()):g}. The second code has the value "
            "1 + alpha, and codes are not negative."
        )
    count = len(alphas)
    if 3 * count > width:
        raise ValueRangeError(
            f"width must be at least {3 * count}, three for every triple; got {width}. "
            "Plant fewer triples."
        )
    directions = unit_rows(width, d, generator)
    members = torch.arange(3 * count).view(count, 3)
    first, second = directions[members[:, 0]], directions[members[:, 1]]
    directions[members[:, 2]] = functional.normalize(second - alphas[:, None] * first, dim=1)
    return Planted(directions=directions, members=members, alphas=alphas)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which of the two codes a rule picks for some ambiguous activations."""

    chosen: Int[Tensor, " token"]
    """0 for z, 1 for z', -1 for no choice."""

    @property
    def resolved(self) -> float:
        """Share of the activations for which the rule chooses."""
        return float((self.chosen >= 0).double().mean())

    def agreement(self, generated: Int[Tensor, " token"]) -> float:
        """Share chosen as generated; without a choice one half."""
        right = (self.chosen == generated).double()
        return float(torch.where(self.chosen < 0, 0.5, right).mean())


def by_cost(costs: Float[Tensor, "token 2"]) -> Choice:
    """The cheaper code; none where they cost the same."""
    tied = (costs[:, 0] - costs[:, 1]).abs() <= _TIE * costs.abs().amax(1).clamp(min=_TIE)
    return Choice(chosen=torch.where(tied, -1, costs.argmin(1)))


def by_encoder(
    activations: Float[Tensor, "token d"], members: Float[Tensor, "token 3 d"]
) -> Choice:
    """The code whose latents are the two largest of ``f_i . x``; none if these are f2 and f3."""
    largest = torch.einsum("nd,nmd->nm", activations, members).topk(2, dim=1).indices.sum(1)
    # 0 + 1 are the latents of z, 0 + 2 those of z'.
    return Choice(chosen=torch.where(largest == 1, 0, torch.where(largest == 2, 1, -1)))


@dataclass(frozen=True, kw_only=True)
class ValueHistograms:
    """How often latents are on, and at which values."""

    on: Float[Tensor, " latent"]
    """p_i."""
    bins: Float[Tensor, "latent bin"]
    """P_i: probability of each bin of values, given that the latent is on."""

    @staticmethod
    def of(values: Float[Tensor, "token latent"], largest: float) -> "ValueHistograms":
        """Estimated on activations whose codes are known, with half a count added everywhere."""
        count = math.ceil(largest / _BIN) + 1
        numbers = (values / _BIN).long().clamp(max=count - 1)
        active = (values > 0).double()
        table = torch.full((values.shape[1], count), 0.5, dtype=torch.float64)
        table.scatter_add_(1, numbers.T, active.T)
        on = (active.sum(0) + 0.5) / (len(values) + 1)
        return ValueHistograms(on=on, bins=table / table.sum(1, keepdim=True))

    def bits(
        self, codes: Float[Tensor, "token member"], latents: Int[Tensor, "token member"]
    ) -> Float[Tensor, " token"]:
        """Description length of the values of some latents, one set of latents per token."""
        numbers = (codes / _BIN).long().clamp(max=self.bins.shape[1] - 1)
        on = self.on[latents]
        spent = torch.where(codes > 0, (on * self.bins[latents, numbers]).log2(), (1 - on).log2())
        return -spent.sum(1)
