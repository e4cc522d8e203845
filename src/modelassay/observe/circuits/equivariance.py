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
    random: Float[Tensor, " pair"]
    """The same pairs, turned by the differences of shuffled angles: the null."""

    @property
    def p_value(self) -> float:
        """Share of sign flips of (turned - random) whose mean is as large; one-sided."""
        difference = (self.turned - self.random).double()
        signs = torch.rand(9999, len(difference), generator=derived(0, "signs")) < 0.5
        flipped = difference.where(signs, -difference).mean(1)
        return (1 + int((flipped >= difference.mean() - 1e-12).sum())) / 10000


def equivariance(
    kernels: Float[Tensor, "member in row column"],
    preferred: Float[Tensor, " member"],
    *,
    period: float = 2 * math.pi,
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
    shuffled = preferred[torch.randperm(members, generator=derived(seed, "angles"))]
    free_sign = period < 2 * math.pi
    found: dict[str, list[float]] = {"turned": [], "unturned": [], "random": []}
    for one, two in combinations(range(members), 2):
        for name, angles in (("turned", preferred), ("unturned", None), ("random", shuffled)):
            angle = 0.0 if angles is None else float(angles[two] - angles[one])
            turned = rotated(kernels[one], angle)
            found[name].append(_likeness(turned, kernels[two], free_sign=free_sign))
    return Equivariance(**{name: torch.tensor(values) for name, values in found.items()})


def rotated(kernel: Float[Tensor, "in row column"], angle: float) -> Float[Tensor, "in row column"]:
    """The kernel turned counter-clockwise about its middle, interpolated bilinearly."""
    cosine, sine = math.cos(angle), math.sin(angle)
    # grid_sample asks where each pixel comes from; its rows run downwards.
    turn = kernel.new_tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    shape = [1, *kernel.shape]
    grid = F.affine_grid(turn[None], shape, align_corners=False)
    return F.grid_sample(kernel[None], grid, mode="bilinear", align_corners=False)[0]


def _likeness(one: Tensor, two: Tensor, *, free_sign: bool) -> float:
    """The largest correlation under small shifts, within the inscribed circle."""
    side = one.shape[1]
    place = torch.arange(side) - (side - 1) / 2
    inside = torch.hypot(place[:, None], place[None]) <= side / 2
    first = (one * inside).flatten().double()
    best = -1.0
    reach = min(_SHIFTS, side // 3)
    padded = F.pad(two * inside, [reach] * 4).double()
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            second = padded[:, down : down + side, right : right + side].flatten()
            found = float(torch.cosine_similarity(first, second, dim=0))
            best = max(best, abs(found) if free_sign else found)
    return best
