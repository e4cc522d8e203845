"""Small networks whose weights can be composed by hand."""

import torch
from torch import nn

from modelassay.core.randomness import generator


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    g = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)
    return module.eval()


def chain() -> nn.Sequential:
    layers = (
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(5, 6, 3),
    )
    return seeded(nn.Sequential(*layers))  # pyright: ignore[reportReturnType]


class Branches(nn.Module):
    """Two branches side by side, concatenated; a sum around a third; pooling after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 2, 1)
        self.three = nn.Conv2d(4, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.around = nn.Conv2d(5, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Conv2d(5, 2, 1)
        seeded(self)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = self.pool(torch.cat([self.one(x).relu(), self.three(x).relu()], 1))
        return self.head(x + self.norm(self.around(x)).relu())


class Gated(nn.Module):
    """A product of two maps, which no weights describe."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.gate = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)
        seeded(self)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.sigmoid(self.gate(x)))


def filters(kernels: torch.Tensor, bias: float = 0.0) -> nn.Sequential:
    """One convolution with given kernels over the mean of the colours, rectified."""
    conv = nn.Conv2d(3, len(kernels), kernels.shape[1])
    with torch.no_grad():
        conv.weight.copy_(kernels[:, None].expand(-1, 3, -1, -1) / 3)
        assert conv.bias is not None
        conv.bias.fill_(bias)
    return nn.Sequential(conv, nn.ReLU()).eval()
