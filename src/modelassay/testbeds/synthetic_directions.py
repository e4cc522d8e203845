"""Unit directions that overlap a little less than random ones do."""

import torch
from jaxtyping import Float
from torch import Tensor

_LEARNING_RATE = 3e-4  # of Adam: SynthSAEBench-16k


def spread_directions(
    n: int, d: int, *, steps: int, generator: torch.Generator
) -> Float[Tensor, "{n} {d}"]:
    """Random unit rows after some steps of Adam on their overlap.

    ``L = sum_{i != j} (e_i . e_j)² + n sum_i (|e_i|² - 1)²``, by `overlap_gradient`.

    Args:
        n: rows.
        d: their width.
        steps: of Adam at a learning rate of 3e-4; 0 leaves them random.
        generator: draws the start.
    """
    rows = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    parameter = torch.nn.Parameter(rows)
    optimizer = torch.optim.Adam([parameter], lr=_LEARNING_RATE)
    for _ in range(steps):
        parameter.grad = overlap_gradient(parameter.detach())
        optimizer.step()
    return torch.nn.functional.normalize(parameter.detach(), dim=1)


def overlap_gradient(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The gradient of L: ``4 (E EᵀE - |e_i|² e_i) + 4 n (|e_i|² - 1) e_i``.

    It goes through the d x d matrix ``EᵀE``, so that n² products are never made.
    """
    squares = rows.square().sum(1, keepdim=True)
    return 4 * (rows @ (rows.T @ rows) + (len(rows) * (squares - 1) - squares) * rows)
