"""The curve of T2, and neurons that watch it from knots of their own choice."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

HARMONICS = (1, 3, 7, 13, 18)
"""Frequencies of the curve: no two distant points are as near as two neighbouring knots (ours)."""
SEGMENT = 0.1
"""Length in t of the crucial segment."""
_GRID = 200_000  # of t, for quantiles of the data (ours)
_DATA_DEPTH = 0.8  # the data are rarest, at 1 - 0.8, where the crucial segments are (ours)
_DATA_PEAKS = 0.45  # and at 0.95


def moment_curve(t: Float[Tensor, " point"]) -> Float[Tensor, "point 10"]:
    """``gamma(t) = (cos 2 pi f t, sin 2 pi f t) / sqrt 5`` over the harmonics f: a closed curve of
    unit vectors, on which ``gamma(s) . gamma(t)`` depends on s - t alone."""
    angles = 2 * math.pi * t.double()[:, None] * torch.tensor(HARMONICS, dtype=torch.double)
    return (torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(len(HARMONICS))).float()


def data_density(t: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """``1 + 0.8 cos 4 pi (t - 0.45)``: most data near t = 0.45 and 0.95, few at 0.2 and 0.7."""
    return 1 + _DATA_DEPTH * (4 * math.pi * (t - _DATA_PEAKS)).cos()


def data_quantiles(shares: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """The t below which the given shares of the data lie."""
    t = (torch.arange(_GRID) + 0.5) / _GRID
    mass = data_density(t.double()).cumsum(0) / _GRID
    return t[torch.searchsorted(mass, shares.double()).clamp(max=_GRID - 1)]


def crucial_knots(start: float, count: int) -> Float[Tensor, " knot"]:
    """Half of the knots evenly inside the tenth of t from `start`, the others evenly outside."""
    inside = count // 2
    middles = (torch.arange(count) + 0.5).double()
    near = start + SEGMENT * middles[:inside] / inside
    far = start + SEGMENT + (1 - SEGMENT) * middles[: count - inside] / (count - inside)
    return (torch.cat([near, far]) % 1).float().sort().values


def even_knots(count: int) -> Float[Tensor, " knot"]:
    """Knots at equal distances."""
    return (torch.arange(count) + 0.5) / count


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """``a_k = ReLU(v_k . x - b_k) / (1 - b_k)`` with ``v_k = gamma(t_k)``: 1 at its knot.

    With b_k the cosine between v_k and its nearer neighbour, a_k is on only between both.
    """

    knots: Float[Tensor, " knot"]
    directions: Float[Tensor, "knot d"]
    biases: Float[Tensor, " knot"]

    def values(self, activations: Float[Tensor, "input d"]) -> Float[Tensor, "input knot"]:
        """The a_k."""
        return (activations @ self.directions.T - self.biases).relu() / (1 - self.biases)

    def reader(self, effects: Float[Tensor, "knot output"]) -> nn.Sequential:
        """``y = sum_k a_k c_k``."""
        size = 1 / (1 - self.biases)
        count, d = self.directions.shape
        neurons, out = nn.Linear(d, count), nn.Linear(count, effects.shape[1], bias=False)
        neurons.weight.data = self.directions * size[:, None]
        neurons.bias.data = -self.biases * size
        out.weight.data = effects.T.contiguous()
        return nn.Sequential(neurons, nn.ReLU(), out)


def neurons_at(knots: Float[Tensor, " knot"], rotation: Float[Tensor, "d d"]) -> Neurons:
    """Neurons for sorted knots, in a rotated space."""
    gaps = (knots.roll(-1) - knots) % 1
    nearer = torch.minimum(gaps, gaps.roll(1))
    origin = moment_curve(torch.zeros(1))
    return Neurons(
        knots=knots,
        directions=moment_curve(knots) @ rotation.T,
        biases=(moment_curve(nearer) @ origin.T)[:, 0],
    )
