"""Sparse features: independent, in sets that are on together, or in sets that exclude each other.

A feature is 0 with probability S, else U[0, 1] (or U[-1, 1]); 1 - S is its density (Elhage et al.
2022). Every instance of a batch of models has densities and draws of its own.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError

Relation = Literal["independent", "correlated", "anticorrelated"]


@runtime_checkable
class Source(Protocol):
    """Where inputs come from."""

    def batch(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "instance input feature"], Float[Tensor, "instance input"] | None]:
        """Inputs and their weights; without weights all count alike."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureData:
    """Sparse features, drawn anew for every batch."""

    density: Float[Tensor, "instance feature"]
    """Chance that the feature is on."""
    relation: Relation = "independent"
    """Of the features of one set: correlated ones are on together, with values of their own; of
    anticorrelated ones at most one is on, each as often as its density says."""
    set_size: int = 1
    """Neighbouring features that form a set."""
    signed: bool = False
    """Values in [-1, 1] instead of [0, 1]."""

    def __post_init__(self) -> None:
        low, high = float(self.density.min()), float(self.density.max())
        most = 1 / self.set_size if self.relation == "anticorrelated" else 1.0
        if not 0 < low <= high <= most:
            raise ValueRangeError(
                f"Densities must be above 0 and at most {most:g}; got {low:g} … {high:g}. A set of "
                "which at most one is on cannot be on more often than always."
            )
        if self.density.shape[1] % self.set_size:
            raise ValueRangeError(
                f"set_size must divide the {self.density.shape[1]} features; got {self.set_size}. "
                "Choose a divisor."
            )
        sets = self.density.unflatten(1, (-1, self.set_size))
        if self.relation != "independent" and not bool((sets == sets[..., :1]).all()):
            raise ValueRangeError(
                "The features of a related set must have one density; got several. "
                "Give all features of a set the same."
            )

    def batch(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "instance input feature"], None]:
        """Fresh inputs, all of one weight."""
        return self.sample(count, generator), None

    def sample(
        self, count: int, generator: torch.Generator
    ) -> Float[Tensor, "instance input feature"]:
        """Inputs of every instance."""
        n_instances, n_features = self.density.shape
        shape = (n_instances, count, n_features)
        density = self.density[:, None]
        if self.relation == "independent":
            # One draw decides both: given u < p, u / p is uniform.
            u = torch.rand(shape, generator=generator, device=density.device)
            on, size = u < density, u / density
        else:
            on = self._sets(count, generator)
            size = torch.rand(shape, generator=generator, device=density.device)
        if self.signed:
            size = 2 * size - 1
        return size * on

    def _sets(self, count: int, generator: torch.Generator) -> Tensor:
        chance = self.density[:, None, :: self.set_size]
        shape = (len(self.density), count, chance.shape[2])
        u = torch.rand(shape, generator=generator, device=chance.device)
        if self.relation == "correlated":
            return (u < chance).repeat_interleave(self.set_size, dim=2)
        chosen = (u / chance).long()[..., None]
        members = torch.arange(self.set_size, device=chance.device)
        return (chosen == members).flatten(2)


def spaced_densities(count: int, base: float, start: float = 0.0) -> Float[Tensor, " instance"]:
    """``base^-t`` for t evenly from `start` to 1: from dense to sparse."""
    return base ** -torch.linspace(start, 1.0, count)


def importances(n_features: int, ratio: float) -> Float[Tensor, " feature"]:
    """``ratio^i`` for features i = 0, 1, …"""
    return ratio ** torch.arange(n_features, dtype=torch.float32)
