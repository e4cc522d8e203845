"""`PromptPairs`: prompts in two versions that differ in one respect, and what tells them apart.

A pair has a clean and a corrupt prompt of equal length, so that each position of one has its
counterpart in the other, and tokens that answer the clean and the corrupt one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptPairs:
    """Clean and corrupt prompts, padded on the right.

    Raises:
        ShapeError: if prompts of a pair differ in length, or the columns do not fit.
        ValueRangeError: if a pair has no answer or no wrong answer, or one token is both.
    """

    clean: Int[Tensor, "pair token"]
    corrupt: Int[Tensor, "corrupt_pair corrupt_token"]
    lengths: Int[Tensor, " length"]
    """Tokens of both prompts of a pair; what follows is padding."""
    answers: Int[Tensor, "answered_pair choice"]
    """Tokens that answer the clean prompt; rows are filled with -1."""
    wrong: Int[Tensor, "wrong_pair other_choice"]
    """Tokens that answer the corrupt prompt; rows are filled with -1."""
    left_out: int = 0
    """Pairs not taken: their prompts differ in length, or no token tells their answers apart."""

    def __post_init__(self) -> None:
        if self.clean.shape != self.corrupt.shape:
            raise ShapeError(
                "Clean and corrupt prompts must have the same lengths, so that positions "
                f"correspond; got {list(self.clean.shape)} and {list(self.corrupt.shape)}. "
                "Leave pairs of unequal length out."
            )
        rows = {len(self.lengths), len(self.answers), len(self.wrong)}
        if rows != {len(self.clean)} or not len(self.clean):
            raise ShapeError(
                f"lengths, answers and wrong must have one row for each of the {len(self.clean)} "
                f"pairs, at least one; got {len(self.lengths)}, {len(self.answers)} and "
                f"{len(self.wrong)}."
            )
        both = (self.answers[:, :, None] == self.wrong[:, None]) & (self.answers[:, :, None] >= 0)
        empty = (self.answers < 0).all(1) | (self.wrong < 0).all(1)
        bad = both.flatten(1).any(1) | empty
        if bool(bad.any()):
            raise ValueRangeError(
                "A pair must have answers and wrong answers, and no token that is both; got "
                f"otherwise in pair {int(bad.nonzero()[0, 0])}. Name tokens that tell them apart."
            )

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(
        self, rows: slice | Int[Tensor, " row"] | Bool[Tensor, " pair"]
    ) -> "PromptPairs":
        return replace(
            self,
            clean=self.clean[rows],
            corrupt=self.corrupt[rows],
            lengths=self.lengths[rows],
            answers=self.answers[rows],
            wrong=self.wrong[rows],
        )

    def split(self, size: int) -> Iterator["PromptPairs"]:
        """Consecutive pairs, `size` at a time, without the padding that they do not need."""
        for start in range(0, len(self), size):
            part = self[slice(start, start + size)]
            length = int(part.lengths.max())
            yield replace(part, clean=part.clean[:, :length], corrupt=part.corrupt[:, :length])

    @property
    def real(self) -> Bool[Tensor, "pair token"]:
        """True at tokens, False at padding."""
        return torch.arange(self.clean.shape[1])[None] < self.lengths[:, None]

    @property
    def groups(self) -> Int[Tensor, " pair"]:
        """Pairs of the same two prompts, in either order, are one group: not independent."""
        known: dict[frozenset[tuple[int, ...]], int] = {}
        found: list[int] = []
        for number, length in enumerate(self.lengths.tolist()):
            sides = (self.clean[number, :length], self.corrupt[number, :length])
            key = frozenset(tuple(side.tolist()) for side in sides)
            found.append(known.setdefault(key, len(known)))
        return torch.tensor(found)


Measure = Callable[[Float[Tensor, "pair vocab"], PromptPairs], Float[Tensor, " pair"]]
"""A number for each pair from the logits after its last token; differentiable."""


def logit_difference(
    logits: Float[Tensor, "pair vocab"], pairs: PromptPairs
) -> Float[Tensor, " pair"]:
    """Log-odds of the answers against the wrong ones: for single tokens their logits' difference.

    ``log sum_a exp(l_a) - log sum_w exp(l_w)``
    """
    return _log_sum(logits, pairs.answers) - _log_sum(logits, pairs.wrong)


def probability_difference(
    logits: Float[Tensor, "pair vocab"], pairs: PromptPairs
) -> Float[Tensor, " pair"]:
    """Probability of the answers less that of the wrong ones."""
    log_p = logits.log_softmax(-1)
    return _log_sum(log_p, pairs.answers).exp() - _log_sum(log_p, pairs.wrong).exp()


MEASURES: dict[str, Measure] = {
    "logit_difference": logit_difference,
    "probability_difference": probability_difference,
}


def measured_last(
    logits: Tensor | None, pairs: PromptPairs, measure: Measure
) -> Float[Tensor, " pair"]:
    """The measure after the last token of each pair, in float32.

    Raises:
        ShapeError: the model gives no logits for each token.
    """
    if logits is None or logits.ndim != 3:
        raise ShapeError(
            "Patching between prompts needs logits [pair token vocab]; got "
            f"{None if logits is None else list(logits.shape)}. Use a language model."
        )
    last = logits[torch.arange(len(logits)), pairs.lengths - 1]
    return measure(last.float(), pairs).cpu()


def _log_sum(logits: Tensor, tokens: Tensor) -> Tensor:
    tokens = tokens.to(logits.device)
    chosen = logits.gather(1, tokens.clamp(min=0))
    return chosen.masked_fill(tokens < 0, -torch.inf).logsumexp(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairText:
    """A pair in words."""

    clean: str
    corrupt: str
    answers: tuple[str, ...]
    """What may follow the clean prompt, leading space included."""
    wrong: tuple[str, ...]


def tokenize_pairs(
    tokenizer: Any,
    texts: Sequence[PairText],
    *,
    unfit: Literal["refuse", "leave out"] = "refuse",
) -> PromptPairs:
    """Pairs in tokens, each with the tokens at which the answers begin to differ.

    What all answers of a pair begin with belongs to its prompts: a model of letters that is asked
    for " is" or " are" is shown the space, and compared at "i" and "a". Where one answer is the
    beginning of another (" go", " goes"), the space after it tells them apart. Tokens with which
    answers of both kinds go on are dropped. The BOS token comes first if the tokenizer has one.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: the pairs.
        unfit: what to do about pairs whose prompts differ in their number of tokens, or whose
            answers no single token tells apart.

    Raises:
        ShapeError: if a pair's prompts differ in length and that is refused.
        TooFewTokensError: if no pair remains.
        ValueRangeError: if nothing tells the answers of a pair apart and that is refused.
    """
    rows: list[_Row] = []
    for text in texts:
        try:
            rows.append(_row(tokenizer, text))
        except (ShapeError, ValueRangeError):
            if unfit == "refuse":
                raise
    if not rows:
        raise TooFewTokensError(
            "At least one pair must have prompts of equal length and answers that one token tells "
            f"apart; got none among {len(texts)}. Use pairs that this tokenizer cuts alike."
        )
    clean, corrupt, answers, wrong = zip(*rows, strict=True)
    return PromptPairs(
        clean=_padded(clean, 0),
        corrupt=_padded(corrupt, 0),
        lengths=torch.tensor([len(prompt) for prompt in clean]),
        answers=_padded(answers, -1),
        wrong=_padded(wrong, -1),
        left_out=len(texts) - len(rows),
    )


_Row = tuple[list[int], list[int], list[int], list[int]]


def _row(tokenizer: Any, text: PairText) -> _Row:
    """The clean and the corrupt prompt's tokens, the answers' and the wrong ones'."""
    clean, answers, wrong = _continued(tokenizer, text.clean, text)
    corrupt, _, _ = _continued(tokenizer, text.corrupt, text)
    if len(clean) != len(corrupt):
        raise ShapeError(
            "Prompts of a pair must have the same number of tokens; got "
            f"{len(clean)} in {text.clean!r} and {len(corrupt)} in {text.corrupt!r}. "
            "Reword one, or leave such pairs out."
        )
    return clean, corrupt, answers, wrong


def _continued(
    tokenizer: Any, prompt: str, text: PairText
) -> tuple[list[int], list[int], list[int]]:
    """The tokens of a prompt with what all answers share, and those of either kind after it."""
    words = [*text.answers, *text.wrong]
    whole = _joined(tokenizer, prompt, words)
    shared = _shared(whole)
    if any(len(ids) == shared for ids in whole):
        whole = _joined(tokenizer, prompt, [f"{word} " for word in words])
        shared = _shared(whole)
    following = [ids[shared] if len(ids) > shared else -1 for ids in whole]
    answers, wrong = set(following[: len(text.answers)]), set(following[len(text.answers) :])
    kept = sorted(answers - wrong - {-1}), sorted(wrong - answers - {-1})
    if not kept[0] or not kept[1]:
        raise ValueRangeError(
            "A token must tell answers and wrong answers apart; got none for "
            f"{_told(text.answers)} and {_told(text.wrong)} after {prompt!r}. Choose other answers."
        )
    bos = getattr(tokenizer, "bos_token_id", None)
    return [*([] if bos is None else [bos]), *whole[0][:shared]], *kept


def _joined(tokenizer: Any, prompt: str, words: Sequence[str]) -> list[list[int]]:
    """Tokens of a prompt with each of its continuations.

    As of one text, unless a token then reaches across the border (digits of a year, say): then
    the prompt keeps its own tokens, and so does what follows.
    """
    own = _ids(tokenizer, prompt)
    whole = [_ids(tokenizer, prompt + word) for word in words]
    if any(ids[: len(own)] != own for ids in whole):
        return [own + _ids(tokenizer, word) for word in words]
    return whole


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the beginning that all sequences have in common."""
    count = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _told(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:3])) + (", …" if len(words) > 3 else "")


def _padded(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "row column"]:
    table = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for number, row in enumerate(rows):
        table[number, : len(row)] = torch.tensor(row)
    return table
