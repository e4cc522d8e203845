"""Whether a family's members are one filter turned: kernels rotated onto each other.

Olah et al. 2020, "Naturally occurring equivariance in neural networks". Kernels must read
something that does not turn itself, such as the pixels: expand deeper ones to the input.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.randomness import derived

_SHIFTS = 2  # pixels that one kernel may lie off the other's middle (ours)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Equivariance:
    """How alike members are once turned onto each other."""

    turned: Float[Tensor, " pair"]
    """Correlation of one member, turned by the difference of the angles, with the other."""
    unturned: Float[Tensor, " pair"]
    """The same pairs as they are."""
    random: Float[Tensor, " shuffle"]
    """Mean over the pairs when they are turned by the differences of shuffled angles: the null."""

    @property
    def p_value(self) -> float:
        """Share of shuffles with at least the mean of the turned pairs; one-sided.

        Members are shuffled, not pairs, which are not independent of each other.
        """
        above = int((self.random >= self.turned.mean() - 1e-6).sum())
        return (1 + above) / (1 + len(self.random))


def equivariance(
    kernels: Float[Tensor, "member in row column"],
    preferred: Float[Tensor, " member"],
    *,
    period: float = 2 * math.pi,
    shuffles: int = 99,
    seed: int = 0,
) -> Equivariance:
    """Turn each pair of members onto each other by the angles that they prefer.

    The correlation is the largest under shifts of up to 2 pixels, within the circle that the
    kernel holds. If the period is half a turn, so that angles say no more than that, the sign is
    also free: half a turn of a filter may be its negative.

    Args:
        kernels: odd sizes or even, rows as many as columns.
        preferred: angles in radians, counter-clockwise.
        period: of the angles: 2π for directions, π for orientations.
        shuffles: of the angles.
        seed: decides the shuffles.

    Raises:
        ShapeError: if kernels are not square or smaller than 3.
        TooFewTokensError: with fewer than 3 members.
    """
    members, _, rows, columns = kernels.shape
    if rows != columns or rows < 3:
        raise ShapeError(
            f"Kernels to be turned must be square and 3 or wider; got {rows} by {columns}. Expand "
            "them to the input."
        )
    if members < 3 or preferred.shape != (members,):
        raise TooFewTokensError(
            f"A family must have 3 or more members, and an angle for each; got {members} and "
            f"{list(preferred.shape)}. Nothing can be said of fewer."
        )
    shifted = torch.stack([_shifted(kernel) for kernel in kernels])
    drawn = derived(seed, "angles")

    def alike(angles: Tensor) -> Tensor:
        found: list[Tensor] = []
        for one, two in combinations(range(members), 2):
            turned = _within(rotated(kernels[one], float(angles[two] - angles[one]))).flatten()
            likeness = shifted[two] @ (turned / turned.norm().clamp_min(1e-12))
            found.append((likeness.abs() if period < 2 * math.pi else likeness).max())
        return torch.stack(found)

    null = [
        alike(preferred[torch.randperm(members, generator=drawn)]).mean() for _ in range(shuffles)
    ]
    return Equivariance(
        turned=alike(preferred),
        unturned=alike(torch.zeros(members)),
        random=torch.stack(null),
    )


def rotated(kernel: Float[Tensor, "in row column"], angle: float) -> Float[Tensor, "in row column"]:
    """The kernel turned counter-clockwise about its middle, interpolated bilinearly."""
    cosine, sine = math.cos(angle), math.sin(angle)
    # grid_sample asks where each pixel comes from; its rows run downwards.
    turn = kernel.new_tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    shape = [1, *kernel.shape]
    grid = F.affine_grid(turn[None], shape, align_corners=False)
    return F.grid_sample(kernel[None], grid, mode="bilinear", align_corners=False)[0]


def _within(kernel: Tensor) -> Tensor:
    """The inscribed circle alone."""
    side = kernel.shape[-1]
    place = torch.arange(side) - (side - 1) / 2
    return kernel * (torch.hypot(place[:, None], place[None]) <= side / 2)


def _shifted(kernel: Tensor) -> Tensor:
    """The kernel at every small shift, each flat and of length 1."""
    side = kernel.shape[-1]
    reach = min(_SHIFTS, side // 3)
    padded = F.pad(_within(kernel), [reach] * 4)
    places = range(2 * reach + 1)
    found = torch.stack(
        [padded[:, i : i + side, j : j + side].flatten() for i in places for j in places]
    )
    return found / found.norm(dim=1, keepdim=True).clamp_min(1e-12)
