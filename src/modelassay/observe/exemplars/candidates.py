"""Candidates for examples, kept in bounded memory while a harvest streams by.

Every choice depends on the tokens alone and not on the batches: the largest scores win, and random
choices are the smallest of pseudo-random keys that belong to unit and token. So parts of a harvest
give the same examples as the whole.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Tokens that may become examples, each with a score: the larger the better."""

    units: Int[np.ndarray, " candidate"]
    groups: Int[np.ndarray, " candidate"]
    contexts: Int[np.ndarray, " candidate"]
    rows: Int[np.ndarray, " candidate"]
    scores: Float[np.ndarray, " candidate"]

    @staticmethod
    def none() -> "Candidates":
        """No candidates."""
        empty = np.zeros(0, dtype=np.int64)
        return Candidates(units=empty, groups=empty, contexts=empty, rows=empty, scores=np.zeros(0))

    def __add__(self, other: "Candidates") -> "Candidates":
        """The candidates of both."""
        return Candidates(
            units=np.concatenate([self.units, other.units]),
            groups=np.concatenate([self.groups, other.groups]),
            contexts=np.concatenate([self.contexts, other.contexts]),
            rows=np.concatenate([self.rows, other.rows]),
            scores=np.concatenate([self.scores, other.scores]),
        )

    def best(self, count: int) -> "Candidates":
        """The best ones of each unit and group, one of a context at most; first among equals."""
        apart = self._firsts(
            np.lexsort((self.rows, -self.scores, self.contexts, *self._kinds())), 3
        )
        return apart._firsts(np.lexsort((apart.rows, -apart.scores, *apart._kinds())), 2, count)

    def _kinds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.groups, self.units

    def _firsts(self, order: NDArray[np.int64], keys: int, count: int = 1) -> "Candidates":
        """The first ones, in this order, of each unit and group (and, of three keys, context)."""
        columns = (self.units, self.groups, self.contexts)[:keys]
        change = np.zeros(len(order), dtype=bool)
        for column in columns:
            ranked = column[order]
            change[1:] |= ranked[1:] != ranked[:-1]
        change[:1] = True
        starts = np.flatnonzero(change)
        rank = np.arange(len(order)) - starts[np.cumsum(change) - 1] if len(order) else order
        return self.take(order[rank < count])

    def take(self, index: NDArray[np.int64]) -> "Candidates":
        """Some of them, in this order."""
        return Candidates(
            units=self.units[index], groups=self.groups[index], contexts=self.contexts[index],
            rows=self.rows[index], scores=self.scores[index],
        )  # fmt: skip

    def chosen(self, counts: tuple[int, ...]) -> NDArray[np.int64]:
        """Columns unit, group, row of what is shown: `counts` of each group.

        No two examples of a unit stand in one context: the groups choose in their order.
        """
        order = np.lexsort((self.rows, -self.scores, self.groups, self.units))
        picked: list[tuple[int, int, int]] = []
        unit, seen, left = -1, set[int](), list(counts)
        columns = (self.units, self.groups, self.contexts, self.rows)
        for owner, group, context, row in zip(*(c[order].tolist() for c in columns), strict=True):
            if owner != unit:
                unit, seen, left = owner, set(), list(counts)
            if left[group] and context not in seen:
                left[group] -= 1
                seen.add(context)
                picked.append((owner, group, row))
        return np.array(picked, dtype=np.int64).reshape(-1, 3)


def random_keys(
    seed: int, units: Int[np.ndarray, " pair"], rows: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """A number in [0, 1) for each unit and token, as if drawn at random, the same each time.

    The finaliser of SplitMix64 (Steele et al. 2014), over unit and token one after the other.
    """
    key = _mixed(np.full(len(units), seed, dtype=np.uint64))
    key = _mixed(key ^ units.astype(np.uint64))
    key = _mixed(key ^ rows.astype(np.uint64))
    return (key >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
