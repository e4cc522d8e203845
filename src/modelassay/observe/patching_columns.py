"""At which positions parts are carried over: one position a column, or several together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.observe.patching_pairs import PromptPairs
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Positions that are patched together."""

    name: str
    mask: Bool[Tensor, "pair token"]


def positions_of(pairs: PromptPairs, subject: Subject) -> tuple[Column, ...]:
    """One column a position.

    Prompts of one length are counted from the start, and a column is named after its token, where
    all clean prompts agree on it. Others are counted from the end, as far as all reach, after a
    column of what comes before.
    """
    real, width = pairs.real, pairs.clean.shape[1]
    if bool((pairs.lengths == width).all()):
        names = [_common(subject, pairs, place) for place in range(width)]
        own = [torch.arange(width) == place for place in range(width)]
        return tuple(
            Column(name=name, mask=mask[None].expand(len(pairs), -1).contiguous())
            for name, mask in zip(names, own, strict=True)
        )
    from_end = torch.arange(width)[None] - pairs.lengths[:, None]
    shortest = int(pairs.lengths.min())
    columns = [Column(name="earlier", mask=real & (from_end < -shortest))]
    return (
        *columns,
        *(Column(name=str(-n), mask=real & (from_end == -n)) for n in range(shortest, 0, -1)),
    )


def everywhere(pairs: PromptPairs) -> Column:
    """All positions together."""
    return Column(name="all", mask=pairs.real)


def _common(subject: Subject, pairs: PromptPairs, place: int) -> str:
    """A position's number, its token if prompts agree, and a star where the pairs differ."""
    ids = pairs.clean[:, place].unique().tolist()
    other = pairs.corrupt[:, place].unique().tolist()
    if len(ids) == 1:
        token = subject.token_strings(ids)[0]
        return f"{place} {token}" if other == ids else f"{place} {token} *"
    same = torch.equal(pairs.clean[:, place], pairs.corrupt[:, place])
    return f"{place}" if same else f"{place} *"


def columns_for(
    subject: Subject, pairs: PromptPairs, columns: Sequence[Column] | None
) -> tuple[Column, ...]:
    """The columns asked for, checked; else one a position.

    Raises:
        ShapeError: a mask does not fit the pairs.
    """
    if columns is None:
        return positions_of(pairs, subject)
    for column in columns:
        if column.mask.shape != pairs.clean.shape:
            raise ShapeError(
                f"A column's mask must be {list(pairs.clean.shape)} (pair, token); got "
                f"{list(column.mask.shape)} for {column.name!r}. Make it from these pairs."
            )
    return tuple(columns)


def chunks(
    pairs: PromptPairs, columns: Sequence[Column], size: int
) -> Iterator[tuple[PromptPairs, list[Bool[Tensor, "chunk token"]]]]:
    """Some pairs at a time, with the columns' masks on them."""
    start = 0
    for chunk in pairs.split(size):
        rows = slice(start, start + len(chunk))
        start += len(chunk)
        yield chunk, [(c.mask & pairs.real)[rows, : chunk.clean.shape[1]] for c in columns]
