"""Search a harvest of any size for examples of units, and for tokens on which they are silent.

Strongest examples alone mislead (Bolukbasi et al. 2021), and examples of activity alone do not say
where a unit stops. So each unit also gets random examples of every part of its range, and three
kinds of negatives: random ones; near ones, whose activation points along what the unit is read with
and which yet are silent; and the tokens of its strongest examples in contexts where it is silent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.decompositions.codes import concatenate
from modelassay.observe.exemplars.candidates import Candidates, random_keys
from modelassay.observe.exemplars.of_codes import REACH, Examples, windows
from modelassay.observe.exemplars.reading import Readable, UnitBatch, read_units
from modelassay.observe.exemplars.units import Units
from modelassay.observe.streaming_statistics import UnitStatistics
from modelassay.subjects.site import Site

_DRAWN = 8  # random tokens drawn for each random negative wanted: active ones are refused (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How many examples of each kind."""

    n_top: int = 10
    n_groups: int = 5
    """Groups of the active values, of about equal size by rank."""
    per_group: int = 2
    n_random: int = 3
    """Random tokens on which the unit is silent."""
    n_near: int = 3
    """Silent tokens whose activations have the largest cosine with what the unit is read with."""
    n_same: int = 3
    """Silent tokens that are the same as those of the strongest examples."""
    reach: int = REACH
    """Tokens shown on each side of an example's peak."""

    def __post_init__(self) -> None:
        counts = (self.n_top, self.per_group, self.n_random, self.n_near, self.n_same, self.reach)
        if min(counts) < 0 or self.n_groups < 1:
            raise ValueRangeError(
                f"Counts of examples must be 0 or more, groups at least 1; got {counts} and "
                f"{self.n_groups} groups. Raise the lowest."
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Examples of each group: strongest, quantile groups, random, near, same token."""
        groups = (self.per_group,) * self.n_groups
        return self.n_top, *groups, self.n_random, self.n_near, self.n_same

    @property
    def names(self) -> tuple[str, ...]:
        """Headings of the groups."""
        return (
            "Strongest",
            *(
                f"Quantile group {group} of {self.n_groups} of its active values"
                for group in range(1, self.n_groups + 1)
            ),
            "Silent: random tokens",
            "Silent: nearest to what it is read with",
            "Silent: the strongest examples' tokens elsewhere",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Examples and statistics of units over a harvest."""

    examples: Examples
    """Group 0 the strongest, then the quantile groups, the highest first, then the negatives."""
    statistics: UnitStatistics


def search_examples(
    source: Readable,
    site: Site | str | None,
    units: Units,
    *,
    wanted: Wanted | None = None,
    seed: int = 0,
    batch_contexts: int = 32,
    pairs: bool = False,
    progress: Progress = SILENT,
) -> Found:
    """Examples of units over a harvest, larger than memory if need be.

    The harvest is read twice: for statistics, and for what depends on them. The contexts that are
    shown are then read once more. No two examples of a unit stand in one context. A value is put
    into its quantile group by the sketch's buckets, so that sizes are equal up to those.

    Args:
        source: activations, stored or made while they are read.
        site: which of the harvest's; may be left out where there is only one.
        units: what to find examples of.
        wanted: how many of each kind.
        seed: of the random ones.
        batch_contexts: contexts read at a time.
        pairs: also count which units are active together.
        progress: where to report.
    """
    wanted = wanted or Wanted()
    search = _Search(source=source, units=units, wanted=wanted, seed=seed)

    def batches(title: str) -> Iterator[UnitBatch]:
        return read_units(
            source, site, units, batch_contexts=batch_contexts, progress=progress, title=title
        )

    parts: UnitStatistics | None = None
    for batch in batches("Statistics"):
        here = UnitStatistics.of(batch.codes, batch.rows, n_top=1, pairs=pairs)
        parts = here if parts is None else parts + here
        search.see_strongest(batch)
    assert parts is not None, "a harvest holds at least one token"
    search.prepare(parts)
    for batch in batches("Examples"):
        search.see_others(batch)
    chosen = search.kept.chosen(wanted.counts)
    return Found(
        examples=_shown(source, site, units, chosen, wanted, batch_contexts), statistics=parts
    )


class _Search:
    """What is kept between batches."""

    def __init__(self, *, source: Readable, units: Units, wanted: Wanted, seed: int) -> None:
        self._contexts = source.contexts
        self._tokens = source.contexts.tokens[source.contexts.measured]
        self._width = len(units)
        self._units = units
        self._wanted = wanted
        self._seed = seed
        self.kept = Candidates.none()
        # Groups draw in turn, and what an earlier one takes is lost to a later: keep so many more.
        self._spare = sum(wanted.counts)

    def see_strongest(self, batch: UnitBatch) -> None:
        units, rows, contexts, values = _active(batch)
        zero = np.zeros_like(units)
        self._keep(units, zero, contexts, rows, values)

    def prepare(self, statistics: UnitStatistics) -> None:
        """Borders of the quantile groups, tokens of the strongest, and random rows to try."""
        n_groups = self._wanted.n_groups
        borders = [statistics.sketch.quantile(1 - g / n_groups) for g in range(1, n_groups)]
        # Just above the bucket's middle: a value of the same bucket belongs to the upper group.
        slack = statistics.sketch.relative_error * 2
        stacked = torch.stack([b - b.abs() * slack for b in borders]) if borders else None
        self._borders = None if stacked is None else stacked.numpy().astype(np.float64)
        top = self.kept.take(np.flatnonzero(self.kept.groups == 0)).best(self._wanted.n_top)
        vocabulary = int(self._tokens.max()) + 1
        tokens = self._tokens[torch.from_numpy(top.rows)].numpy()
        self._of_token = scipy.sparse.csr_matrix(
            (np.ones(len(tokens)), (tokens, top.units)), shape=(vocabulary, self._width)
        )
        self._tried = self._random_rows()

    def _random_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Units and rows to try as random negatives, sorted by row, with the draw's rank."""
        per_unit = _DRAWN * self._wanted.n_random
        units = np.repeat(np.arange(self._width), per_unit)
        number = np.tile(np.arange(per_unit), self._width)
        drawn = random_keys(self._seed + 1, units, number)
        rows = (drawn * len(self._tokens)).astype(np.int64)
        order = np.argsort(rows, kind="stable")
        return units[order], rows[order], number[order]

    def see_others(self, batch: UnitBatch) -> None:
        wanted = self._wanted
        units, rows, contexts, values = _active(batch)
        groups = np.ones_like(units)
        if self._borders is not None:
            for border in self._borders:
                groups += values < border[units]
        keys = random_keys(self._seed, units, rows)
        self._keep(units, groups, contexts, rows, -keys)
        active = batch.codes.to_scipy()
        if wanted.n_random:
            self._see_random(batch, active, wanted.n_groups + 1)
        if wanted.n_near:
            self._see_near(batch, wanted.n_groups + 2)
        if wanted.n_same:
            self._see_same(batch, active, wanted.n_groups + 3)

    def _see_random(self, batch: UnitBatch, active: scipy.sparse.csr_matrix, group: int) -> None:
        units, rows, number = self._tried
        first = int(batch.rows[0]) if len(batch.rows) else 0
        here = slice(*np.searchsorted(rows, (first, first + len(batch.rows))))
        units, local, number = units[here], rows[here] - first, number[here]
        if not len(units):
            return
        silent = np.asarray(active[local, units]).ravel() == 0
        units, local, number = units[silent], local[silent], number[silent]
        owner = batch.contexts.numpy()[local]
        self._keep(
            units, np.full_like(units, group), owner, local + first, -number.astype(np.float64)
        )

    def _see_near(self, batch: UnitBatch, group: int) -> None:
        near = self._units.nearness(batch.activations)
        if near is None:
            return
        near = near.cpu().masked_fill(batch.codes.dense().cpu() != 0, -torch.inf)
        _, sizes = batch.contexts.unique_consecutive(return_counts=True)
        start = 0
        for size in sizes.tolist():
            score, at = near[start : start + size].max(0)
            rows = batch.rows[start : start + size][at].numpy()
            units = np.flatnonzero(score.isfinite().numpy())
            owner = np.full_like(units, int(batch.contexts[start]))
            self._keep(
                units, np.full_like(units, group), owner, rows[units],
                score.double().numpy()[units],
            )  # fmt: skip
            start += size

    def _see_same(self, batch: UnitBatch, active: scipy.sparse.csr_matrix, group: int) -> None:
        tokens = self._tokens[batch.rows].numpy()
        alike = (self._of_token[tokens] > 0).astype(np.int8)
        silent = (alike - alike.multiply(active != 0)).tocoo()
        there = silent.data > 0
        units, local = silent.col[there].astype(np.int64), silent.row[there]
        rows, owner = batch.rows.numpy()[local], batch.contexts.numpy()[local]
        keys = random_keys(self._seed + 2, units, rows)
        self._keep(units, np.full_like(units, group), owner, rows, -keys)

    def _keep(
        self, units: np.ndarray, groups: np.ndarray, contexts: np.ndarray, rows: np.ndarray,
        scores: np.ndarray,
    ) -> None:  # fmt: skip
        here = Candidates(units=units, groups=groups, contexts=contexts, rows=rows, scores=scores)
        self.kept = (self.kept + here.best(self._spare)).best(self._spare)


def _active(batch: UnitBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit, row, context and value of every active entry."""
    entries = batch.codes.to_scipy().tocoo()
    rows, contexts = batch.rows.numpy()[entries.row], batch.contexts.numpy()[entries.row]
    return entries.col.astype(np.int64), rows, contexts, entries.data.astype(np.float64)


def _shown(
    source: Readable,
    site: Site | str | None,
    units: Units,
    chosen: Int[np.ndarray, "example 3"],
    wanted: Wanted,
    batch_contexts: int,
) -> Examples:
    """The windows of the chosen tokens; only their contexts are read."""
    place = source.contexts.measured.nonzero()
    numbers = place[torch.from_numpy(chosen[:, 2]), 0].unique()
    if not len(numbers):
        numbers = torch.arange(1)
    batches = list(read_units(source, site, units, contexts=numbers, batch_contexts=batch_contexts))
    rows = torch.cat([batch.rows for batch in batches]).numpy()
    columns = concatenate([batch.codes for batch in batches]).to_scipy().tocsc()
    columns.sort_indices()
    local = chosen.copy()
    local[:, 2] = np.searchsorted(rows, chosen[:, 2])
    some = source.contexts[numbers]
    return windows(
        local, columns, some.measured.nonzero().numpy(), some, wanted.reach, wanted.names,
        wanted.n_groups + 1,
    )  # fmt: skip


def peak_values(examples: Examples) -> Float[Tensor, " example"]:
    """Value of each example's unit at the token that it was chosen for; 0 where it is silent."""
    lengths = examples.value_starts.diff()
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    found = torch.zeros(len(lengths))
    at_peak = examples.offsets == examples.peaks[owner]
    found[owner[at_peak]] = examples.values[at_peak]
    return found
