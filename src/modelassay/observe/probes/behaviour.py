"""Behaviour: which of two continuations a model prefers after a prompt, also under an edit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

Change = Callable[[Tensor, Tensor], Tensor]
"""From activations [row width] and the item of each row to changed activations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """Prompts, each with a continuation that goes with class 0 and one that goes with class 1."""

    tokens: Int[Tensor, "item option token"]
    """Prompt and continuation, padded on the right with 0."""
    prompt_lengths: Int[Tensor, " item"]
    lengths: Int[Tensor, "item option"]

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def of(
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[tuple[Sequence[int], Sequence[int]]],
    ) -> "Choices":
        """Put prompts and continuations together.

        Raises:
            ShapeError: if they are not as many.
            TooFewTokensError: if a prompt or a continuation is empty.
        """
        if len(prompts) != len(continuations):
            raise ShapeError(
                f"Each prompt must have its two continuations; got {len(prompts)} prompts and "
                f"{len(continuations)} pairs. Give one pair a prompt."
            )
        if not all(prompts) or not all(part for pair in continuations for part in pair):
            raise TooFewTokensError(
                "Prompts and continuations must hold a token each; got an empty one. Leave it out."
            )
        rows = [
            [[*prompt, *option] for option in pair]
            for prompt, pair in zip(prompts, continuations, strict=True)
        ]
        lengths = torch.tensor([[len(option) for option in pair] for pair in rows])
        tokens = torch.zeros(len(rows), 2, int(lengths.max()), dtype=torch.int64)
        for item, pair in enumerate(rows):
            for option, ids in enumerate(pair):
                tokens[item, option, : len(ids)] = torch.tensor(ids)
        return Choices(
            tokens=tokens,
            prompt_lengths=torch.tensor([len(prompt) for prompt in prompts]),
            lengths=lengths,
        )

    def take(self, index: Int[Tensor, " taken"]) -> "Choices":
        """Some of the items, in this order."""
        return Choices(
            tokens=self.tokens[index],
            prompt_lengths=self.prompt_lengths[index],
            lengths=self.lengths[index],
        )


def log_odds(
    subject: Subject,
    choices: Choices,
    site: Site | str,
    changes: Sequence[Change | None],
    *,
    everywhere: bool = False,
    batch_items: int = 32,
    step: Callable[[int], None] = lambda _done: None,
) -> Float[Tensor, "change item"]:
    """``log p(continuation 1 | prompt) - log p(continuation 0 | prompt)`` under each change.

    The blocks before the site run once for all changes.

    Args:
        changes: of the activations at `site`; None for the model as it is.
        everywhere: change all tokens of the prompt, not its last one only.
        step: told after each batch how many items are done.
    """
    site = subject.resolve(site)
    columns: list[Tensor] = []
    for items in torch.arange(len(choices)).split(batch_items):
        part = choices.take(items)
        tokens, lengths = part.tokens.flatten(0, 1), part.lengths.flatten()
        longest = int(lengths.max())
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        tokens = tokens[:, :longest]
        rest = subject.downstream(site, tokens, mask=None if bool(mask.all()) else mask)
        starts = part.prompt_lengths.repeat_interleave(2)
        where = _changed_places(starts, longest, everywhere=everywhere)
        owners = items.repeat_interleave(2)[:, None].expand(-1, longest)[where]
        scores: list[Tensor] = []
        for change in changes:
            value = rest.activation
            if change is not None:
                flat = value.flatten(2).clone()
                flat[where] = change(flat[where].cpu(), owners).to(flat)
                value = flat.view_as(value)
            logits = rest(value).logits
            assert logits is not None
            scores.append(_continuation_scores(logits, tokens, starts, mask))
        columns.append(torch.stack(scores))
        step(len(items))
    return torch.cat(columns, 1)


def _changed_places(
    starts: Int[Tensor, " row"], longest: int, *, everywhere: bool
) -> Bool[Tensor, "row token"]:
    position = torch.arange(longest)[None, :]
    if everywhere:
        return position < starts[:, None]
    return position == starts[:, None] - 1


def _continuation_scores(
    logits: Tensor,
    tokens: Int[Tensor, "row token"],
    starts: Int[Tensor, " row"],
    mask: Bool[Tensor, "row token"],
) -> Float[Tensor, " item"]:
    """Summed log-probability of the second continuation less that of the first."""
    log_shares = logits[:, :-1].double().log_softmax(-1).cpu()
    each = log_shares.gather(2, tokens[:, 1:, None])[:, :, 0]
    target = torch.arange(1, tokens.shape[1])[None, :]
    counted = (target >= starts[:, None]) & mask[:, 1:]
    totals = (each * counted).sum(1).view(-1, 2)
    return totals[:, 1] - totals[:, 0]
