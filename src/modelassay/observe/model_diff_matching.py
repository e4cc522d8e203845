"""Match the directions of two dictionaries: which have a partner, and which stand alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ShapeError

_NULL_LEVEL = 0.99  # of the matches of a rotated dictionary (ours)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Matching:
    """One to one partners between a base model's and a tuned model's dictionary."""

    base: Int[Tensor, " pair"]
    """Latent of the base's dictionary."""
    tuned: Int[Tensor, " pair"]
    """Its partner in the other: the pairs whose cosines have the largest sum."""
    cosines: Float[Tensor, " pair"]
    null: float
    """99 % of the partners' cosines lie below, if one dictionary is rotated at random."""
    n_base: int
    n_tuned: int

    @property
    def matched(self) -> Bool[Tensor, " pair"]:
        """Pairs that are nearer than those of a rotated dictionary."""
        return self.cosines > self.null

    @property
    def alone_in_base(self) -> Int[Tensor, " latent"]:
        """Latents of the base's dictionary without a partner."""
        return _without(self.n_base, self.base[self.matched])

    @property
    def alone_in_tuned(self) -> Int[Tensor, " latent"]:
        """Latents of the tuned model's dictionary without a partner: candidates, not yet new."""
        return _without(self.n_tuned, self.tuned[self.matched])


def match_directions(
    base: Float[Tensor, "base_latent width"],
    tuned: Float[Tensor, "tuned_latent tuned_width"],
    generator: torch.Generator,
) -> Matching:
    """Match directions one to one by the largest sum of cosines (the Hungarian method).

    Only a match beyond the null counts: the tuned directions rotated by a random orthogonal matrix
    (Haar) keep all their angles among themselves, and lose all relation to the base's.

    Args:
        base: one row a latent, of any length.
        tuned: likewise.
        generator: draws the rotation.

    Raises:
        ShapeError: if the widths differ.
    """
    if base.shape[1] != tuned.shape[1]:
        raise ShapeError(
            f"Directions must be of one width; got {base.shape[1]} and {tuned.shape[1]}. Match "
            "dictionaries of the same site of two models of one architecture."
        )
    one, two = (functional.normalize(d.double().cpu(), dim=1) for d in (base, tuned))
    first, second, cosines = _pairs(one, two)
    draw = torch.randn(one.shape[1], one.shape[1], generator=generator, dtype=torch.float64)
    rotation, triangle = torch.linalg.qr(draw)
    rotation = rotation * triangle.diagonal().sign()
    *_, null = _pairs(one, two @ rotation)
    return Matching(
        base=first, tuned=second, cosines=cosines, null=float(null.quantile(_NULL_LEVEL)),
        n_base=len(base), n_tuned=len(tuned),
    )  # fmt: skip


def _pairs(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    table = one @ two.T
    first, second = map(torch.from_numpy, linear_sum_assignment(table.numpy(), maximize=True))
    return first, second, table[first, second]


def _without(width: int, taken: Tensor) -> Int[Tensor, " latent"]:
    alone = torch.ones(width, dtype=torch.bool)
    alone[taken] = False
    return alone.nonzero()[:, 0]
