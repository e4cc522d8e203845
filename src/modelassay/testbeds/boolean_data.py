"""Sparse bits that come together in the data: joint states which no gate made."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.testbeds.truth import Truth


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundles:
    """Sparse bits of which neighbours 2b and 2b + 1 come together in the data."""

    n_bundles: int
    together: float
    """Share of inputs on which the bits of a bundle come together."""
    alone: float
    """Share of inputs on which a bit comes, partner or not."""

    @property
    def n_bits(self) -> int:
        """Two a bundle."""
        return 2 * self.n_bundles

    @property
    def groups(self) -> Int[Tensor, " bit"]:
        """The bundle of every bit."""
        return torch.arange(self.n_bits) // 2

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "input bit"]:
        """Inputs in which bundles come whole, and some bits alone."""
        whole = torch.rand(count, self.n_bundles, generator=generator) < self.together
        single = torch.rand(count, self.n_bits, generator=generator) < self.alone
        return (whole.repeat_interleave(2, 1) | single).float()

    def truth(self) -> Truth:
        """For every bundle, whether both of its bits are on."""
        return Truth(
            names=tuple(f"bundle {bundle}" for bundle in range(self.n_bundles)),
            scalars=lambda bits: bits[:, 0::2] * bits[:, 1::2],
        )
