"""A layer of ReLUs of one scalar, and the read-outs that make functions of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError

_GRID = 20_001  # points of [-1, 1] that a read-out is fitted on (ours)

TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "square": torch.square,
    "cube": lambda x: x**3,
    "modulus": torch.abs,
    "sine": lambda x: torch.sin(torch.pi * x),
}
"""Functions on [-1, 1] that ten hinges can approximate, or make exactly (modulus)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOut:
    """``weights . a(x) + bias``, the least-squares approximation of a target on [-1, 1]."""

    weights: Float64[Tensor, " hinge"]
    bias: float
    mean_squared_error: float
    largest_error: float
    fvu: float
    """Fraction of the target's variance that is left unexplained."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hinges:
    """Neurons ``a_k(x) = ReLU(s_k x - knot_k)`` with signs s_k = ±1."""

    signs: Float64[Tensor, " hinge"]
    knots: Float64[Tensor, " knot"]

    def __post_init__(self) -> None:
        if self.signs.shape != self.knots.shape or self.signs.ndim != 1:
            raise ShapeError(
                "Hinges must have one sign and one knot each; got "
                f"{list(self.signs.shape)} and {list(self.knots.shape)}. Pass two lists of one "
                "length."
            )

    def __len__(self) -> int:
        return len(self.signs)

    def __call__(self, x: Float[Tensor, " input"]) -> Float[Tensor, "input hinge"]:
        """The neurons on some inputs."""
        return (self.signs.to(x) * x[:, None] - self.knots.to(x)).clamp(min=0)

    def read_out(self, target: Callable[[Tensor], Tensor]) -> ReadOut:
        """The least-squares weights and bias for a target, x uniform on [-1, 1].

        Raises:
            ValueRangeError: if the hinges are linearly dependent there, so that the weights are
                not unique.
        """
        x = grid()
        design = torch.cat([self(x), torch.ones(len(x), 1, dtype=x.dtype)], 1)
        rank = int(torch.linalg.matrix_rank(design))
        if rank < design.shape[1]:
            raise ValueRangeError(
                f"Hinges and the constant must be linearly independent on [-1, 1]; got rank {rank} "
                f"of {design.shape[1]}. Choose different knots."
            )
        solution = torch.linalg.lstsq(design, target(x)[:, None]).solution[:, 0]
        error = design @ solution - target(x)
        return ReadOut(
            weights=solution[:-1],
            bias=float(solution[-1]),
            mean_squared_error=float(error.square().mean()),
            largest_error=float(error.abs().max()),
            fvu=float(error.square().mean() / target(x).var(correction=0)),
        )


def one_sided(count: int = 10) -> Hinges:
    """All hinges open to the right, at knots spread evenly over [-1, 1)."""
    knots = -1 + 2 * torch.arange(count, dtype=torch.float64) / count
    return Hinges(signs=torch.ones_like(knots), knots=knots)


def two_sided(count: int = 10) -> Hinges:
    """Half of the hinges open to the right and half to the left, all away from 0."""
    if count % 2:
        raise ValueRangeError(f"count must be even; got {count}. Half the hinges go to each side.")
    knots = 2 * torch.arange(count // 2, dtype=torch.float64) / count
    sides = torch.ones_like(knots)
    return Hinges(signs=torch.cat([sides, -sides]), knots=torch.cat([knots, knots]))


def grid() -> Float64[Tensor, " input"]:
    """The points of [-1, 1] that stand for a uniform x."""
    return torch.linspace(-1, 1, _GRID, dtype=torch.float64)
