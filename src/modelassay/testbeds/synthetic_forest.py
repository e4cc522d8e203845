"""Trees of features: a child fires only with its parent, and siblings exclude each other.

Features are numbered breadth first: all roots, then all their children, and so on; children of one
parent have consecutive numbers. What is left behind the last level belongs to no tree.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """Complete trees of one shape."""

    roots: int
    """Number of trees; 0 for none."""
    branching: int
    """Children of every feature that is no leaf."""
    depth: int
    """Levels below the roots."""
    exclusive: bool = True
    """Whether at most one of the children of a parent fires; a uniform draw decides which."""
    scaled: bool = True
    """Whether a child's value is multiplied by its parent's value over its parent's mean value:
    what tells version 2 of SynthSAEBench from version 1."""

    def __post_init__(self) -> None:
        if self.roots < 0 or self.branching < 1 or self.depth < 0:
            raise ValueRangeError(
                "A forest must have roots >= 0, branching >= 1 and depth >= 0; got "
                f"{self.roots}, {self.branching} and {self.depth}. Use roots=0 for no trees."
            )

    @property
    def levels(self) -> tuple[range, ...]:
        """The features of every level, roots first."""
        found: list[range] = []
        start = 0
        for level in range(self.depth + 1):
            stop = start + self.roots * self.branching**level
            found.append(range(start, stop))
            start = stop
        return tuple(found)

    @property
    def n_features(self) -> int:
        """Features in trees."""
        return self.levels[-1].stop

    def parents(self, n_features: int) -> Int[Tensor, " feature"]:
        """The parent of each feature; -1 for roots and for features outside the trees."""
        parents = torch.full((n_features,), -1)
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            number = torch.arange(len(level)) // self.branching
            parents[level.start : level.stop] = above.start + number
        return parents

    def compensated(self, wanted: Float64[Tensor, " feature"]) -> Float64[Tensor, " feature"]:
        """How probable a feature must be, given its parent, for about the wanted rate.

        ``p_i / p_parent * (1 + sum of the siblings' p_j / p_parent)``, at most 1: the first factor
        makes up for the parent, the second for the siblings, to first order. Where siblings
        compete hard the rate stays below the wanted one; `rates` says by how much.

        Reference: SAELens, `compute_probability_correction_factors`.
        """
        given = wanted.clone()
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            siblings = wanted[level.start : level.stop].view(-1, self.branching)
            share = siblings / wanted[above.start : above.stop, None]
            if self.exclusive:
                share = share * (1 + share.sum(1, keepdim=True) - share)
            given[level.start : level.stop] = share.flatten()
        return given.clamp(max=1)

    def rates(self, given: Float64[Tensor, " feature"]) -> Float64[Tensor, " feature"]:
        """How often each feature fires if draws are independent given the parents.

        A child i that is drawn with probability q_i survives the draw among its siblings with
        ``E[1 / (1 + K)] = ∫_0^1 prod_{j != i} (1 - q_j + q_j s) ds``, K the number of siblings
        drawn; the integral is exact.

        Args:
            given: probability of each feature given its parent.
        """
        rates = given.clone()
        # Gauss-Legendre with n nodes is exact up to degree 2n - 1; the degree is branching - 1.
        nodes, weights = np.polynomial.legendre.leggauss(self.branching // 2 + 1)
        where, weight = torch.from_numpy(nodes + 1) / 2, torch.from_numpy(weights) / 2
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            drawn = given[level.start : level.stop].view(-1, self.branching)
            kept = drawn
            if self.exclusive:
                factors = 1 - drawn[..., None] * (1 - where)
                others = factors.prod(1, keepdim=True) / factors
                kept = drawn * (others @ weight)
            parents = rates[above.start : above.stop, None]
            rates[level.start : level.stop] = (kept * parents).flatten()
        return rates
