"""At which tokens a model is steered: by position, by token, or all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Tokens that are steered: those that fulfil all that is asked.

    Raises:
        ValueRangeError: if a range of positions is empty.
    """

    start: int = 0
    """First position; 1 leaves out a BOS token."""
    stop: int | None = None
    """One past the last position; None: to the end, what is generated included."""
    positions: frozenset[int] | None = None
    """Only these positions, counted from the start; None: all."""
    tokens: frozenset[int] | None = None
    """Only at these token ids; None: at all."""

    def __post_init__(self) -> None:
        empty = self.stop is not None and self.stop <= self.start
        if (
            self.start < 0
            or empty
            or (self.positions is not None and min(self.positions, default=-1) < 0)
        ):
            raise ValueRangeError(
                "Positions to steer must be counted from 0 and not be empty; got start="
                f"{self.start}, stop={self.stop}, positions={self.positions}. Widen them."
            )

    def mask(self, tokens: Int[Tensor, "batch token"]) -> Bool[Tensor, "batch token"]:
        """True at the tokens that are steered."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        wanted = place >= self.start
        if self.stop is not None:
            wanted &= place < self.stop
        if self.positions is not None:
            wanted &= torch.isin(place, torch.tensor(sorted(self.positions), device=place.device))
        mask = wanted[None].expand(tokens.shape)
        if self.tokens is not None:
            ids = torch.tensor(sorted(self.tokens), dtype=tokens.dtype, device=tokens.device)
            mask = mask & torch.isin(tokens, ids)
        return mask.contiguous()


EVERYWHERE = Where()


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTokens:
    """A prompt as steering saw it."""

    strings: tuple[str, ...]
    steered: tuple[bool, ...]
    read: tuple[bool, ...]
    """Where the behaviour was measured."""


def shown(
    subject: Subject,
    prompts: Sequence[Int[Tensor, " _"]],
    where: Where | None,
    read: Sequence[Sequence[int]],
) -> tuple[ShownTokens, ...]:
    """Which tokens of some prompts are steered, and which are read.

    Args:
        where: None if nothing is steered.
        read: positions read in each prompt; negative ones count from the end.
    """
    found: list[ShownTokens] = []
    for tokens, places in zip(prompts, read, strict=True):
        chosen = {place % len(tokens) for place in places}
        steered = [False] * len(tokens) if where is None else where.mask(tokens[None])[0].tolist()
        found.append(
            ShownTokens(
                strings=tuple(subject.token_strings(tokens.tolist())),
                steered=tuple(steered),
                read=tuple(place in chosen for place in range(len(tokens))),
            )
        )
    return tuple(found)
