"""Generalisation matrix: train on each data set, test on every other."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelassay.core.randomness import derived
from modelassay.observe.probes.data import Split
from modelassay.observe.probes.probe import ProbeMethod
from modelassay.observe.probes.scores import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneralisationMatrix:
    """Scores of probes of each training set on each test set."""

    names: tuple[str, ...]
    scores: tuple[tuple[Scores | None, ...], ...]
    """[train][test]; None where the test set holds groups of the training set."""


def generalisation_matrix(
    method: ProbeMethod, sets: Mapping[str, Split], *, seed: int = 0
) -> GeneralisationMatrix:
    """Fit to the training side of each set and score on the test side of all.

    On the diagonal stands what a single set can show. A probe that reads the concept and not the
    set also holds off it.

    Args:
        sets: splits of one site and of the same classes.

    Raises:
        ShapeError: if they differ in width.
        ValueRangeError: if they differ in classes.

    Reference: Marks & Tegmark 2023, figure 6.
    """
    rows: list[tuple[Scores | None, ...]] = []
    for name, split in sets.items():
        probe = method.fit(split.train, derived(seed, "generalisation", name))
        rows.append(
            tuple(
                None
                if probe.trained_on & other.test.named_groups
                else probe.score(other.test, seed=seed)
                for other in sets.values()
            )
        )
    return GeneralisationMatrix(names=tuple(sets), scores=tuple(rows))
