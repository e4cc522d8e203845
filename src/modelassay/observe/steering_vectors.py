"""Steering directions from two sets of prompts: the difference of their means.

Principal components of pairwise differences are no substitute: centring removes the mean difference
itself, so that the first component is what varies between the pairs.

Reference: Marks & Tegmark 2023; Rimsky et al. 2024, "Steering Llama 2 via contrastive activation
addition".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.observe.steering import SteeredDirection
from modelassay.observe.steering_where import ShownTokens, shown
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanDifference:
    """Mean activation of prompts that have something less that of prompts that lack it."""

    site: Site
    difference: Float[Tensor, " width"]
    """Not normalised: its length is what separates the means."""
    read: tuple[ShownTokens, ...]
    """The prompts, with the tokens that were read."""

    @property
    def length(self) -> float:
        """Distance of the means: adding so much along the direction moves one to the other."""
        return float(self.difference.norm())

    @property
    def units(self) -> SteeredDirection:
        """The direction, to steer with."""
        return SteeredDirection(self.difference, name="mean difference")


@torch.no_grad()
def mean_difference(
    subject: Subject,
    site: Site | str,
    positive: Sequence[Int[Tensor, " _"]],
    negative: Sequence[Int[Tensor, " _"]],
    *,
    positions: Sequence[int] = (-1,),
) -> MeanDifference:
    """The direction from one set of prompts to another at a site.

    Args:
        positive: prompts that have what is to be steered towards.
        negative: prompts that lack it.
        positions: tokens of each prompt that are read; negative ones count from the end.

    Raises:
        ValueRangeError: a set without prompts, or a prompt without one of the positions.
        UnknownNameError: no such site.
    """
    site = subject.resolve(site)
    if not positive or not negative:
        raise ValueRangeError(
            "Both sets must hold at least one prompt; got "
            f"{len(positive)} and {len(negative)}. Give prompts with and without the property."
        )
    means = [_mean(subject, site, prompts, positions) for prompts in (positive, negative)]
    prompts = [*positive, *negative]
    return MeanDifference(
        site=site,
        difference=means[0] - means[1],
        read=shown(subject, prompts, None, [positions] * len(prompts)),
    )


def _mean(
    subject: Subject, site: Site, prompts: Sequence[Tensor], positions: Sequence[int]
) -> Float[Tensor, " width"]:
    rows: list[Tensor] = []
    for tokens in prompts:
        beyond = [place for place in positions if not -len(tokens) <= place < len(tokens)]
        if beyond:
            raise ValueRangeError(
                f"Every prompt must reach the positions that are read; got position {beyond[0]} "
                f"in one of {len(tokens)} tokens. Read fewer, or longer prompts."
            )
        run = subject.run(tokens[None], read=[site], until=site)
        rows.append(run.activations[site][0].flatten(1)[list(positions)].float().cpu())
    # Each prompt counts once.
    return torch.stack([row.mean(0) for row in rows]).mean(0)
