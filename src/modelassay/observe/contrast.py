"""Which units respond to A and not to B: effect sizes, false discovery rate, and replication.

Units are discovered on one half of the documents and tested again on the other. Among thousands of
units some will differ by chance, and those that differ most look larger than they are; only the
second half, which chose nothing, says how large the differences are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.observe.contrast_documents import Responses
from modelassay.observe.contrast_statistics import (
    N_PERMUTATIONS,
    Effects,
    adjusted,
    effects,
    is_paired,
    permutation_p,
    wilson,
)

FDR = 0.05
"""Of the discoveries, the share that may be false (convention)."""
REPLICATION_P = 0.05
"""One-sided, in the direction of the discovery: what chance alone replicates (convention)."""
_MIN_DOCUMENTS = 4  # of each side in each half: fewer cannot reach a p-value of 0.05 (ours)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Contrast:
    """Units that respond differently to A and B."""

    paired: bool
    """Whether A and B are compared within documents."""
    n_discovery: tuple[int, int]
    """Items of A and of B in the first half."""
    n_replication: tuple[int, int]
    discovery: Effects
    replication: Effects
    """On the other half: not inflated by the choice."""
    p_value: Float[np.ndarray, " unit"]
    """Two-sided, first half."""
    q_value: Float[np.ndarray, " unit"]
    """The false discovery rate at which a unit is discovered."""
    replication_p: Float[np.ndarray, " unit"]
    """One-sided in the first half's direction, second half."""
    fdr: float

    @property
    def discovered(self) -> Int[np.ndarray, " discovery"]:
        """Units with a q-value of at most the rate, the largest replicated difference first."""
        found = np.flatnonzero(self.q_value <= self.fdr)
        return found[np.argsort(-np.abs(self.replication.auroc[found] - 0.5), kind="stable")]

    @property
    def replicated(self) -> Bool[np.ndarray, " unit"]:
        """Discovered, and again in the second half with the same sign."""
        return (self.q_value <= self.fdr) & (self.replication_p <= REPLICATION_P) & self.same_sign

    @property
    def same_sign(self) -> Bool[np.ndarray, " unit"]:
        """Whether both halves differ in the same direction."""
        return np.sign(self.discovery.auroc - 0.5) == np.sign(self.replication.auroc - 0.5)

    @property
    def replication_share(self) -> tuple[float, float, float]:
        """Share of the discoveries that replicate, with its interval; the null is 0.05."""
        found, again = len(self.discovered), int(self.replicated.sum())
        return (again / found if found else float("nan"), *wilson(again, found))

    @property
    def sign_share(self) -> tuple[float, float, float]:
        """Share of the discoveries with the same sign in both halves; the null is 1/2."""
        found = self.discovered
        agree = int(self.same_sign[found].sum())
        return (agree / len(found) if len(found) else float("nan"), *wilson(agree, len(found)))


def contrast(
    responses: Responses,
    side: Bool[np.ndarray, " item"],
    generator: torch.Generator,
    *,
    fdr: float = FDR,
    n_permutations: int = N_PERMUTATIONS,
) -> Contrast:
    """Compare responses to A with those to B.

    If documents have items on both sides, only those count, and each is compared with itself;
    otherwise documents of A are compared with documents of B. Either way documents are permuted
    and split whole.

    Args:
        responses: of units to items.
        side: True for A, False for B.
        generator: splits and permutes.
        fdr: false discovery rate of the first half.
        n_permutations: the smallest p-value is 1 over one more than these.

    Raises:
        ShapeError: if there is not one side for each item.
        ValueRangeError: if the rate is not between 0 and 1.
        TooFewTokensError: if a half would have fewer than four documents of a side.
    """
    if len(side) != len(responses):
        raise ShapeError(
            f"side must have one entry for each of {len(responses)} items; got {len(side)}. Give "
            "True for A and False for B."
        )
    if not 0 < fdr < 1:
        raise ValueRangeError(f"fdr must be between 0 and 1; got {fdr}. Use 0.05.")
    paired = is_paired(side, responses.groups)
    if paired:
        both = np.intersect1d(responses.groups[side], responses.groups[~side])
        kept = np.isin(responses.groups, both)
        responses, side = responses.take(kept), side[kept]
    first = _half(side, responses.groups, generator, paired=paired)
    halves = [(responses.take(part), side[part]) for part in (first, ~first)]
    (one, side_one), (two, side_two) = halves
    found, again = (effects(r.means, r.rates, s, r.groups) for r, s in halves)
    p = permutation_p(one.means, side_one, one.groups, generator, n_permutations=n_permutations)
    return Contrast(
        paired=paired,
        n_discovery=(int(side_one.sum()), int((~side_one).sum())),
        n_replication=(int(side_two.sum()), int((~side_two).sum())),
        discovery=found,
        replication=again,
        p_value=p,
        q_value=adjusted(p),
        replication_p=permutation_p(
            two.means, side_two, two.groups, generator, n_permutations=n_permutations,
            direction=found.auroc - 0.5,
        ),
        fdr=fdr,
    )  # fmt: skip


def _half(
    side: Bool[np.ndarray, " item"], groups: Int[np.ndarray, " item"],
    generator: torch.Generator, *, paired: bool,
) -> Bool[np.ndarray, " item"]:  # fmt: skip
    """Items of the first half: of each side, half of the documents at random."""
    chosen: list[np.ndarray] = []
    for name, members in (("A", side), ("B", ~side)):
        owners = np.unique(groups[members])
        if len(owners) < 2 * _MIN_DOCUMENTS:
            raise TooFewTokensError(
                f"A contrast must have {2 * _MIN_DOCUMENTS} documents on each side, for two "
                f"halves; got {len(owners)} of {name}"
                f"{' that also hold the other side' if paired else ''}. Add documents."
            )
        order = torch.randperm(len(owners), generator=generator).numpy()
        chosen.append(owners[order[: len(owners) // 2]])
        if paired:
            break
    return np.isin(groups, np.concatenate(chosen))
