"""Attention heads of known kinds: previous token, induction, duplicate token.

Measured on repeated random tokens, where only a mechanism can help, and on text. A head is
reported where its mean attention reaches a threshold and lies above every shuffled placement of
the same number of keys, so that a model without such heads yields an empty list.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.head_patterns import (
    KINDS,
    HeadKind,
    shuffled_targets,
    target_share,
    targets_of,
)
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

THRESHOLD = 0.4
"""Mean attention from which a head is reported (ours: most of a head's attention, next to the 0.1
and less of heads of other kinds)."""
N_NULLS = 20  # ours: with 20, a head that looks anywhere passes the null with 1 in 21


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundHead:
    """A head that is of a kind."""

    kind: HeadKind
    layer: int
    head: int
    score: float
    null: float
    """Largest score under shuffled positions."""

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head} {self.kind.replace('_', ' ')} {self.score:.2f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadScores:
    """All heads on all kinds."""

    subject: str
    kinds: tuple[HeadKind, ...]
    scores: Float[Tensor, "kind layer head"]
    """Mean attention to the kind's keys, from 0 to 1; NaN where no query had any."""
    nulls: Float[Tensor, "kind layer head"]
    """Largest of `N_NULLS` scores with shuffled positions."""
    copying: float | None
    """Loss on the first copy minus loss on the second, in nats per token: what repetition is
    worth to the model by any mechanism. None on text."""

    def found(self, threshold: float = THRESHOLD) -> tuple[FoundHead, ...]:
        """Heads that reach the threshold and exceed their null, best first.

        Raises:
            ValueRangeError: a threshold outside 0 to 1.
        """
        if not 0 < threshold <= 1:
            raise ValueRangeError(
                f"threshold must be above 0 and at most 1; got {threshold}. Use {THRESHOLD}."
            )
        passed = (self.scores >= threshold) & (self.scores > self.nulls)
        heads = [
            FoundHead(
                kind=self.kinds[k],
                layer=layer,
                head=head,
                score=float(self.scores[k, layer, head]),
                null=float(self.nulls[k, layer, head]),
            )
            for k, layer, head in passed.nonzero().tolist()
        ]
        return tuple(sorted(heads, key=lambda each: -each.score))

    def best(self, kind: HeadKind) -> FoundHead:
        """The head with the highest score on a kind, whether it is reported or not."""
        k = self.kinds.index(kind)
        flat = self.scores[k].nan_to_num(-1.0).flatten()
        layer, head = divmod(int(flat.argmax()), self.scores.shape[2])
        return FoundHead(
            kind=kind,
            layer=layer,
            head=head,
            score=float(self.scores[k, layer, head]),
            null=float(self.nulls[k, layer, head]),
        )


@torch.no_grad()
def heads_on_repeated_tokens(
    subject: Subject,
    *,
    period: int = 20,
    draws: int = 50,
    bos: int | None = None,
    allowed: Int[Tensor, " chosen"] | None = None,
    seed: int = 0,
) -> HeadScores:
    """Score all heads on ``BOS x x`` with x random tokens without repetition inside.

    Nothing but the repetition tells what comes next in the second copy, so that attention to the
    token after the first occurrence is a mechanism and no knowledge of the language.

    Args:
        subject: a verified language model.
        period: tokens of x; cut to what the context and the vocabulary hold.
        draws: sequences.
        bos: token before the first copy; None for the tokenizer's, or none if it has none.
        allowed: token ids to draw from; None for all but the tokenizer's special ones.
        seed: of the draws.

    Raises:
        UnsupportedModelError: no verified language model.
        ValueRangeError: fewer than 2 tokens to draw from, a period below 2 or no draws.
    """
    _require_roles(subject)
    ids = _allowed_ids(subject) if allowed is None else allowed
    bos = getattr(subject.tokenizer, "bos_token_id", None) if bos is None else bos
    lead = 0 if bos is None else 1
    period = min(period, (subject.context_tokens - lead) // 2, len(ids))
    if period < 2 or draws < 1:
        raise ValueRangeError(
            f"Repeated tokens need a period of at least 2 and at least 1 draw; got {period} and "
            f"{draws} with {len(ids)} tokens to draw from. Raise them, or allow more tokens."
        )
    generator = derived(seed, "repeated tokens")
    copies = torch.stack(
        [ids[torch.randperm(len(ids), generator=generator)[:period]] for _ in range(draws)]
    )
    tokens = torch.cat([torch.full((draws, lead), bos or 0), copies, copies], 1)
    measured = torch.ones_like(tokens, dtype=torch.bool)
    measured[:, :lead] = False
    second = measured.clone()
    second[:, : lead + period] = False
    return _scores(subject, tokens, measured, second, seed, _copying(subject, tokens, period))


@torch.no_grad()
def heads_on_text(
    subject: Subject, contexts: TokenizedCorpus, *, seed: int = 0, contexts_at_most: int = 32
) -> HeadScores:
    """Score all heads on text, where tokens recur by themselves.

    Args:
        subject: a verified language model.
        contexts: its tokens.
        seed: of the shuffled positions.
        contexts_at_most: whole contexts that are read; padded ones are passed over.

    Raises:
        UnsupportedModelError: no verified language model.
        ValueRangeError: no context without padding.
    """
    _require_roles(subject)
    whole = contexts[contexts.mask.all(1)][:contexts_at_most]
    if not len(whole):
        raise ValueRangeError(
            f"Heads are scored on contexts without padding; got none among {len(contexts)}. "
            "Shorten context_tokens."
        )
    return _scores(subject, whole.tokens, whole.measured, whole.measured, seed, None)


def _scores(
    subject: Subject,
    tokens: Int[Tensor, "batch token"],
    anywhere: Bool[Tensor, "batch token"],
    repeated: Bool[Tensor, "batch token"],
    seed: int,
    copying: float | None,
) -> HeadScores:
    """`anywhere`: queries of the previous token; `repeated`: queries of the other kinds."""
    sites = [Site("attn_pattern", layer) for layer in range(subject.n_layers)]
    patterns = subject.run(tokens, read=sites, until=sites[-1]).activations
    shape = (len(KINDS), subject.n_layers, subject.n_heads)
    scores, nulls = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    for k, kind in enumerate(KINDS):
        measured = (anywhere if kind == "previous_token" else repeated).to(subject.device)
        targets = targets_of(kind, tokens.to(subject.device))
        generator = derived(seed, "shuffled positions", kind)
        shuffles = [shuffled_targets(targets, generator) for _ in range(N_NULLS)]
        for layer, site in enumerate(sites):
            pattern = patterns[site]
            scores[k, layer] = target_share(pattern, targets, measured).cpu()
            drawn = [target_share(pattern, each, measured).cpu() for each in shuffles]
            nulls[k, layer] = torch.stack(drawn).amax(0)
    return HeadScores(
        subject=subject.name, kinds=KINDS, scores=scores, nulls=nulls, copying=copying
    )


def _copying(subject: Subject, tokens: Int[Tensor, "batch token"], period: int) -> float:
    logits = subject.run(tokens).logits
    assert logits is not None
    targets = tokens[:, 1:].to(logits.device)
    losses = -logits[:, :-1].float().log_softmax(-1).gather(2, targets[..., None])[..., 0]
    # The first token of the second copy is no repetition yet that could be foreseen.
    first, second = losses[:, -2 * period + 1 : -period], losses[:, -period + 1 :]
    return float(first.mean() - second.mean())


def _allowed_ids(subject: Subject) -> Int[Tensor, " chosen"]:
    ids = torch.arange(subject.vocab_size)
    special = getattr(subject.tokenizer, "all_special_ids", None) or []
    return ids[~torch.isin(ids, torch.tensor(special, dtype=torch.long))]


def _require_roles(subject: Subject) -> None:
    if subject.structure is None:
        raise UnsupportedModelError(
            f"Heads need a language model whose roles were verified; got {subject.name!r}, which "
            "has module ports only. Load it with roles=True."
        )
