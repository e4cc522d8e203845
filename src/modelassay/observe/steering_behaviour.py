"""What steering is to change: a number for each prompt, read from a steered run.

A behaviour sees the same edits as the text whose perplexity is the cost, and is never what the
direction was fitted on: state it before looking at the curve.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.observe.steering import Steering, generate_steered, together
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


@runtime_checkable
class Behaviour(Protocol):
    """A number for each prompt."""

    @property
    def name(self) -> str:
        """For readers: what the number is."""
        ...

    @property
    def read(self) -> tuple[int, ...]:
        """Positions of the prompt that the number is read at; negative ones from the end."""
        ...

    def measured(
        self,
        subject: Subject,
        prompts: Sequence[Int[Tensor, " _"]],
        steerings: Sequence[Steering],
    ) -> Float[Tensor, " prompt"]:
        """The number for each prompt under some steerings."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenProbability:
    """Probability that the token after the prompt is one of a set: ``sum_t p(t)``.

    Raises:
        ValueRangeError: if the set is empty.
    """

    tokens: frozenset[int]
    title: str = ""

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) < 0:
            raise ValueRangeError(
                "A set of tokens must hold at least one id, none below 0; got "
                f"{sorted(self.tokens)}. Name the tokens whose probability is to be measured."
            )

    @property
    def name(self) -> str:
        """What the number is."""
        return self.title or f"probability of {len(self.tokens)} tokens"

    @property
    def read(self) -> tuple[int, ...]:
        """The last position."""
        return (-1,)

    def measured(
        self,
        subject: Subject,
        prompts: Sequence[Int[Tensor, " _"]],
        steerings: Sequence[Steering],
    ) -> Float[Tensor, " prompt"]:
        """The set's probability after each prompt.

        Raises:
            ValueRangeError: a token that the model does not have.
        """
        if max(self.tokens) >= subject.vocab_size:
            raise ValueRangeError(
                f"Token ids must be from 0 to {subject.vocab_size - 1}; got {max(self.tokens)}. "
                "Use this model's own tokenizer."
            )
        chosen = sorted(self.tokens)

        def last(tokens: Tensor) -> Tensor:
            logits = subject.run(tokens, edit=together(steerings, tokens)).logits
            assert logits is not None
            return logits[:, -1].float().softmax(-1)[:, chosen].sum(1)

        return by_length(prompts, last)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeScore:
    """A linear probe's score at a later site: ``w · x + b`` at the last position."""

    site: Site
    weight: Float[Tensor, " width"]
    bias: float = 0.0
    title: str = ""

    @property
    def name(self) -> str:
        """What the number is."""
        return self.title or f"probe at {self.site}"

    @property
    def read(self) -> tuple[int, ...]:
        """The last position."""
        return (-1,)

    def measured(
        self,
        subject: Subject,
        prompts: Sequence[Int[Tensor, " _"]],
        steerings: Sequence[Steering],
    ) -> Float[Tensor, " prompt"]:
        """The score of each prompt.

        Raises:
            ShapeError: the probe has another width than the site.
        """

        def score(tokens: Tensor) -> Tensor:
            edits = together(steerings, tokens)
            run = subject.run(tokens, edit=edits, read=[self.site])
            rows = run.activations[self.site][:, -1].flatten(1)
            if rows.shape[1] != len(self.weight):
                raise ShapeError(
                    f"A probe at {self.site} must have {rows.shape[1]} weights; got "
                    f"{len(self.weight)}. Use the site that it was trained on."
                )
            return rows @ self.weight.to(rows) + self.bias

        return by_length(prompts, score)


Classifier = Callable[[Sequence[str]], Sequence[float]]
"""From continuations to a number for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuationScore:
    """A function of the text that the model writes after the prompt, the likeliest token each time.

    The prompt itself is not part of the text.
    """

    classifier: Classifier
    max_new_tokens: int
    title: str

    @property
    def name(self) -> str:
        """What the number is."""
        return self.title

    @property
    def read(self) -> tuple[int, ...]:
        """No position of the prompt: what follows it is read."""
        return ()

    def measured(
        self,
        subject: Subject,
        prompts: Sequence[Int[Tensor, " _"]],
        steerings: Sequence[Steering],
    ) -> Float[Tensor, " prompt"]:
        """The classifier's number for each continuation.

        Raises:
            ShapeError: the classifier gives another count of numbers than it was given texts.
        """

        def scored(tokens: Tensor) -> Tensor:
            longer = generate_steered(
                subject, tokens, steerings, max_new_tokens=self.max_new_tokens
            )
            texts = [
                "".join(subject.token_strings(row.tolist())) for row in longer[:, tokens.shape[1] :]
            ]
            numbers = list(self.classifier(texts))
            if len(numbers) != len(texts):
                raise ShapeError(
                    f"A classifier must give one number for each of {len(texts)} texts; got "
                    f"{len(numbers)}. Return a list as long as its argument."
                )
            return torch.tensor(numbers, dtype=torch.float32)

        return by_length(prompts, scored)


def by_length(
    prompts: Sequence[Int[Tensor, " _"]], function: Callable[[Tensor], Tensor]
) -> Float[Tensor, " prompt"]:
    """A function of batches of equal length, for prompts of any: no padding, no mask."""
    found = torch.zeros(len(prompts))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique():
        rows = (lengths == length).nonzero()[:, 0]
        batch = torch.stack([prompts[row] for row in rows.tolist()])
        with torch.no_grad():
            found[rows] = function(batch).float().cpu()
    return found
