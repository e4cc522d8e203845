"""Numbers that are known about a testbed, beside what is measured."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownNumber:
    """One published or derived number, and its reproduction."""

    name: str
    """What is measured, in words."""
    expected: float
    tolerance: float
    """Largest absolute deviation that counts as a reproduction."""
    measured: float
    source: str
    """Where the expected value comes from: a paper and its section, or a derivation."""

    @property
    def reproduced(self) -> bool:
        """Whether the measured value lies within the tolerance."""
        return math.isfinite(self.measured) and abs(self.measured - self.expected) <= self.tolerance
