"""A lens over one text: what each depth predicts at each token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.observe.lenses.lens import Lens, depth_names
from modelassay.observe.lenses.measures import Final, Measured, measure
from modelassay.observe.lenses.streams import lens_logits, read_streams
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class LensReading:
    """What a lens sees over one text. Depths are rows, tokens columns; nats throughout."""

    subject: str
    lens: str
    depths: tuple[str, ...]
    """"embedding", then the block whose output is read."""
    texts: tuple[str, ...]
    """The text of each token."""
    tokens: Int[Tensor, " token"]
    top: Int[Tensor, "depth token rank"]
    """Likeliest next tokens, best first."""
    top_texts: dict[int, str]
    """Text of every token in `top` and of every target."""
    top_probabilities: Float[Tensor, "depth token rank"]
    entropy: Float[Tensor, "depth token"]
    kl: Float[Tensor, "depth token"]
    """KL(final || lens); 0 at the last depth."""
    cross_entropy: Float[Tensor, "depth token"]
    """-log p(next token); NaN at the last token, which has none."""
    rank: Int[Tensor, "depth token"]
    """Tokens that the lens holds likelier than the next one; -1 at the last token."""


@torch.no_grad()
def lens_reading(
    subject: Subject,
    lenses: Sequence[Lens],
    text: str | Int[Tensor, " token"],
    *,
    count: int = 10,
) -> tuple[LensReading, ...]:
    """Read one text through lenses, in a single pass of the model.

    Args:
        subject: a verified language model.
        lenses: one reading each, in this order.
        text: a text, which begins with the BOS token if the tokenizer has one; or token ids.
        count: likeliest tokens that are kept; at most the vocabulary.

    Raises:
        TooFewTokensError: an empty text.
        ValueRangeError: a text for a subject without tokenizer, ids outside the vocabulary, or
            more tokens than the model's context.
        ProvenanceError: a lens of another model.
        UnsupportedModelError: no verified language model, or its last depth does not reproduce
            its logits.
    """
    for lens in lenses:
        lens.check(subject)
    tokens = text if isinstance(text, Tensor) else tokens_of(subject, text)
    streams = read_streams(subject, tokens[None])
    count = min(count, subject.vocab_size)
    logits = streams.logits[0]
    final = Final.of(logits, count)
    targets = torch.cat([tokens[1:], tokens[-1:]]).to(logits.device)
    resid = tuple(stream[0] for stream in streams.resid)
    return tuple(
        _reading(
            subject,
            lens,
            tokens,
            [measure(each, final, targets) for each in lens_logits(subject, lens, resid, logits)],
        )
        for lens in lenses
    )


def tokens_of(subject: Subject, text: str) -> Int[Tensor, " token"]:
    """The token ids of a text, after a BOS token if the tokenizer has one.

    Character offsets are not needed, so slow tokenizers will do.

    Raises:
        TooFewTokensError: an empty text.
        ValueRangeError: the subject has no tokenizer.
    """
    if subject.tokenizer is None:
        raise ValueRangeError(
            f"A text needs a tokenizer; got the subject {subject.name!r} without one. "
            "Load it with tokenizer=…, or pass token ids."
        )
    ids = list(subject.tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise TooFewTokensError(
            f"A text must have at least one token; got {text!r}. Write something to read."
        )
    first = subject.tokenizer.bos_token_id
    return torch.tensor([*([] if first is None else [first]), *ids])


def _reading(
    subject: Subject, lens: Lens, tokens: Int[Tensor, " token"], measured: list[Measured]
) -> LensReading:
    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(each, name) for each in measured]).cpu()

    cross_entropy, rank, top = stacked("cross_entropy"), stacked("rank"), stacked("top")
    cross_entropy[:, -1], rank[:, -1] = torch.nan, -1
    shown = sorted({*top.flatten().tolist(), *tokens.tolist()})
    texts = dict(zip(shown, subject.token_strings(shown), strict=True))
    return LensReading(
        subject=subject.name,
        lens=lens.name,
        depths=depth_names(subject.n_layers),
        texts=tuple(texts[token] for token in tokens.tolist()),
        tokens=tokens,
        top=top,
        top_texts=texts,
        top_probabilities=stacked("top_probabilities"),
        entropy=stacked("entropy"),
        kl=stacked("kl"),
        cross_entropy=cross_entropy,
        rank=rank,
    )
