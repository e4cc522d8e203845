"""The models of T1: ReLUs of two coordinates, and readers of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

TILES = 500
_RELUS = 32  # of each coordinate
_HARMONICS = 5  # of the random functions of t (ours)
_RIDGE = 1e-5  # of the mean variance: keeps covectors short where two kinks nearly meet (ours)
_DENSE = 40  # points of the curve that a tile's centre is the mean of (ours)
_SHARPNESS = 2.0  # spacings of tiles per width of the table's softmax (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """``(cos p t, sin q t)`` for t in [0, 2 pi): 1 and 1 is the circle, others are Lissajous's."""

    p: int
    q: int

    def points(self, t: Float[Tensor, " point"]) -> Float[Tensor, "point 2"]:
        """Where the curve is at t."""
        return torch.stack([(self.p * t).cos(), (self.q * t).sin()], 1)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "point 2"]:
        """Points at uniform t."""
        return self.points(2 * math.pi * torch.rand(count, generator=generator))

    def shuffled(self, count: int, generator: torch.Generator) -> Float[Tensor, "point 2"]:
        """Both coordinates as on the curve, independent of each other."""
        x, y = (self.sample(count, generator)[:, axis] for axis in (0, 1))
        return torch.stack([x, y], 1)


def targets(inputs: Float[Tensor, "input 2"]) -> Float[Tensor, "input 2"]:
    """What the blind reader is fitted to: ``g = sin 3x`` and ``h = cos 4y + y``."""
    x, y = inputs.T
    return torch.stack([(3 * x).sin(), (4 * y).cos() + y], 1)


def curve_trunk(generator: torch.Generator) -> nn.Sequential:
    """``Q ReLU([x - a, y - b])``, kinks a and b uniform on [-1, 1], 32 of each, Q a rotation."""
    kinks = 2 * torch.rand(2, _RELUS, generator=generator) - 1
    width = 2 * _RELUS
    hidden, turn = nn.Linear(2, width), nn.Linear(width, width, bias=False)
    hidden.weight.data = torch.eye(2).repeat_interleave(_RELUS, 0)
    hidden.bias.data = -kinks.flatten()
    turn.weight.data = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return nn.Sequential(hidden, nn.ReLU(), turn).requires_grad_(False)


def blind_reader(trunk: nn.Module) -> nn.Linear:
    """The linear read-out of g and h, by least squares on the square that holds the curve."""
    line = torch.linspace(-1, 1, 4001)
    # Each coordinate in turn: the activations are additive, so this determines both.
    square = torch.cat([torch.stack([line, 0 * line], 1), torch.stack([0 * line, line], 1)])
    activations, wanted = trunk(square).double(), targets(square).double()
    mean, level = activations.mean(0), wanted.mean(0)
    centred = activations - mean
    gram = centred.T @ centred
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    weight = torch.linalg.solve(gram, centred.T @ (wanted - level)).T
    reader = nn.Linear(*weight.T.shape)
    reader.weight.data = weight.float()
    reader.bias.data = (level - weight @ mean).float()
    return reader.requires_grad_(False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles:
    """Pieces of the curve of equal length in t: activations belong to the nearest centre."""

    t: Float[Tensor, " tile"]
    """The middles."""
    centres: Float[Tensor, "tile d"]
    """Mean activation of each."""

    def nearest(self, activations: Float[Tensor, "input d"]) -> Int[Tensor, " input"]:
        """The tile of every activation, on the curve or off it."""
        distance = self.centres.square().sum(1) / 2 - activations @ self.centres.T
        return distance.argmin(1)

    @property
    def spacing(self) -> float:
        """Median distance from a centre to the nearest other one."""
        distance = torch.cdist(self.centres.double(), self.centres.double())
        return float(distance.fill_diagonal_(math.inf).amin(1).median())


def make_tiles(curve: Curve, trunk: nn.Module) -> Tiles:
    """The 500 tiles of a curve."""
    step = 2 * math.pi / TILES
    middles = step * (torch.arange(TILES) + 0.5)
    return Tiles(t=middles, centres=tile_means(curve, trunk))


def tile_means(curve: Curve, function: Callable[[Tensor], Tensor]) -> Float[Tensor, "tile value"]:
    """Mean of a function of the inputs over every tile."""
    t = 2 * math.pi * (torch.arange(TILES * _DENSE) + 0.5) / (TILES * _DENSE)
    return function(curve.points(t)).reshape(TILES, _DENSE, -1).mean(1)


def random_functions(
    t: Float[Tensor, " point"], count: int, generator: torch.Generator
) -> Float[Tensor, "point function"]:
    """Random smooth functions of t: trigonometric polynomials, normal coefficients."""
    angles = t[:, None] * torch.arange(1, _HARMONICS + 1)
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    coefficients = torch.randn(2 * _HARMONICS, count, generator=generator)
    return waves @ coefficients / math.sqrt(_HARMONICS)


class TableReader(nn.Module):
    """A table over the tiles: ``softmax_j(-|x - c_j|^2 / 2 s^2) . table_j``.

    With s half the spacing of the centres this is the value at the nearest point of the curve,
    smooth where two are equally near.
    """

    def __init__(self, tiles: Tiles, table: Float[Tensor, "tile output"]) -> None:
        super().__init__()
        precision = (_SHARPNESS / tiles.spacing) ** 2
        count, d = tiles.centres.shape
        self.score = nn.Linear(d, count)
        self.score.weight.data = precision * tiles.centres
        self.score.bias.data = -precision / 2 * tiles.centres.square().sum(1)
        self.table = nn.Linear(count, table.shape[1], bias=False)
        self.table.weight.data = table.T.contiguous()
        self.requires_grad_(False)

    def forward(self, activations: Float[Tensor, "input d"]) -> Float[Tensor, "input output"]:
        """The table's entries of the nearest tiles."""
        return self.table(self.score(activations).softmax(1))
