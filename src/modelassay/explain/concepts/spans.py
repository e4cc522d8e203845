"""Where concepts hold: half-open intervals of characters, collected and then looked up."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray


class Spans:
    """Intervals per concept name, in any order, overlaps allowed."""

    def __init__(self) -> None:
        self._starts: defaultdict[str, list[int]] = defaultdict(list)
        self._ends: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, concept: str, start: int, end: int) -> None:
        """The concept holds at the characters `start … end - 1`."""
        if start < end:
            self._starts[concept].append(start)
            self._ends[concept].append(end)

    def names(self) -> frozenset[str]:
        """Concepts with at least one interval."""
        return frozenset(self._starts)

    def cover(self, concept: str, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each position lies in some interval of the concept.

        A position lies inside exactly when more intervals have begun at or before it than have
        ended at or before it.
        """
        if concept not in self._starts:
            return np.zeros(len(positions), dtype=bool)
        begun = np.searchsorted(np.sort(self._starts[concept]), positions, side="right")
        ended = np.searchsorted(np.sort(self._ends[concept]), positions, side="right")
        return begun > ended
