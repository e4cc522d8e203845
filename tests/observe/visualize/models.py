"""Small networks whose answers can be worked out."""

import torch
import torch.nn.functional as F
from torch import nn

from modelassay.core.randomness import generator
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.settings import Settings
from modelassay.observe.visualize.transforms import Warp

__all__ = ["QUICK", "UNIT", "Functional", "Tokens", "convolutional", "linear_filter", "silent"]

QUICK = Settings(
    size=(24, 24), steps=12, transforms=(Warp(shift=2.0, factors=(0.95, 1.05), degrees=5.0),)
)


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    g = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)
    return module.eval()


def convolutional(*, in_place: bool = False) -> nn.Sequential:
    layers = (
        nn.Conv2d(3, 8, 5, stride=2),
        nn.ReLU(inplace=in_place),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(inplace=in_place),
    )
    return seeded(nn.Sequential(*layers))  # pyright: ignore[reportReturnType]


def linear_filter(size: int = 16) -> nn.Sequential:
    """One filter as large as the image: its response is a scalar product."""
    return seeded(nn.Sequential(nn.Conv2d(3, 2, size)))  # pyright: ignore[reportReturnType]


def silent(bias: float) -> nn.Sequential:
    """A unit that is closed on every grey image: weights of sum 0 and a negative bias."""
    module = convolutional()
    with torch.no_grad():
        first: nn.Conv2d = module[0]  # pyright: ignore[reportAssignmentType]
        first.weight -= first.weight.mean((1, 2, 3), keepdim=True)
        first.bias.fill_(bias)
    return module


class Functional(nn.Module):
    """Rectifiers as functions; one module that runs twice, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.again = nn.Conv2d(4, 4, 3)
        self.idle = nn.Conv2d(4, 4, 3)
        seeded(self)

    def forward(self, x):
        x = F.relu(self.first(x), inplace=True)
        return F.relu(self.again(F.relu(self.again(x))))


class Tokens(nn.Module):
    """Patches as tokens, for images of one size only, with GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 10, 4, stride=4)
        self.position = nn.Parameter(torch.zeros(16, 10))
        self.block = nn.Sequential(nn.Linear(10, 12), nn.GELU())
        self.head = nn.Linear(12, 5)
        seeded(self)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.block(x).mean(1))
