"""The two readers of T6, and where days and their names lie."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
N_DAYS = len(DAYS)
NAME = 0.6
"""Length of a name beside the circle's radius of 1 (ours): the plane comes first."""
_ANGLES = 2 * math.pi / N_DAYS * torch.arange(N_DAYS)
CIRCLE = torch.stack([_ANGLES.cos(), _ANGLES.sin()], 1)
_TURNS = _ANGLES[:, None] * torch.tensor([2.0, 3.0])
NAMES = torch.stack([_TURNS.cos(), _TURNS.sin()], 2).flatten(1) / math.sqrt(2)


class Trunk(nn.Module):
    """Indicators of day, name and count, and sparse values, to the activations."""

    columns: Tensor

    def __init__(self, columns: Float[Tensor, "input d"]) -> None:
        super().__init__()
        self.register_buffer("columns", columns)

    def forward(self, inputs: Tensor) -> Tensor:
        """One row of the table for every input that is on, weighted."""
        return inputs @ self.columns


class TurningReader(nn.Module):
    """Adds days by turning the circle."""

    plane: Tensor
    counts: Tensor
    wanted: Tensor

    def __init__(self, plane: Float[Tensor, "2 d"], counts: Float[Tensor, "count d"]) -> None:
        super().__init__()
        self.register_buffer("plane", plane)
        self.register_buffer("counts", counts)
        index = (torch.arange(N_DAYS)[:, None] - torch.arange(N_DAYS)) % N_DAYS
        self.register_buffer("wanted", CIRCLE[index])  # [answer, count, 2]

    def forward(self, x: Tensor) -> Tensor:
        """``logit_a = sum_k count_k <point, circle at a - k>``."""
        return torch.einsum("bk,akc,bc->ba", x @ self.counts.T, self.wanted, x @ self.plane.T)


class NamingReader(nn.Module):
    """Looks a day up by its name."""

    names: Tensor

    def __init__(self, names: Float[Tensor, "day d"]) -> None:
        super().__init__()
        self.register_buffer("names", names)
        self.threshold = float((NAMES @ NAMES.T - 2 * torch.eye(N_DAYS)).max())

    def forward(self, x: Tensor) -> Tensor:
        """``logit_a = ReLU(n_a . N^T x / 0.6 - b) / (1 - b)``: an indicator of the day."""
        return (x @ self.names.T / NAME - self.threshold).relu() / (1 - self.threshold)
