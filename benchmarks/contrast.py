"""Contrasts on real models: docstring against code, dialogue against narration, a tuned twin.

    python -m benchmarks.contrast [--tokens 40000]

Prints what the documentation quotes (docs/contrast.md): discoveries, replication, and the null of
shuffled sides. The twin is the bundled model after some steps on TinyStories, trained here.
"""

import argparse
import copy
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modelassay.activations.corpus import TokenizedCorpus, read_texts, tokenize
from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.core.randomness import derived
from modelassay.decompositions.recipes import TopK
from modelassay.explain.concepts.labels import concept_labels
from modelassay.fitting.fit import fit
from modelassay.observe.contrast import Contrast, contrast
from modelassay.observe.contrast_documents import Responses, responses
from modelassay.observe.exemplars.units import Units, latents
from modelassay.observe.model_diff import model_change, raised_responses
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

LENGTH = 128
QUOTED = re.compile('"[^"]*"|“[^”]*”')


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model, its contexts, and a small dictionary fitted on them."""

    subject: Subject
    contexts: TokenizedCorpus
    site: str
    activations: Harvest
    units: Units


def main() -> None:
    """Run all three."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tokens", type=int, default=40_000)
    tokens = arguments.parse_args().tokens
    shared = Path(os.environ.get("MODELASSAY_SHARED", "../shared")) / "data"
    start = time.perf_counter()
    python = prepare(load_subject("bundled"), stdlib_corpus(), "resid_post.2", tokens)
    labels = concept_labels(python.contexts)
    assert labels is not None
    number = labels.names.index("docstring")
    sides = labels.labels[..., number].long().masked_fill(~labels.known[..., number], -1)
    show("docstring against code", python, sides)
    stories = read_texts(shared / "text_tinystories" / "stories.txt", heldout_share=0.5)
    small = prepare(load_subject(str(shared / "stories260k")), stories, "resid_post.2", tokens)
    show("dialogue against narration", small, dialogue(small.contexts))
    twins(python, stories, tokens)
    print(f"{time.perf_counter() - start:.0f} s")


def prepare(subject: Subject, corpus, site: str, tokens: int) -> Bench:
    """Harvest, and fit a dictionary of 512 latents."""
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=LENGTH)
    contexts = contexts.take(tokens, derived(0, "contexts"))
    activations = harvest(subject, contexts, site, progress=SILENT)
    dictionary = fit(TopK(width=512, k=16), activations, tokens=5 * tokens, seed=0, progress=SILENT)
    return Bench(
        subject=subject, contexts=contexts, site=site, activations=activations,
        units=latents(dictionary),
    )  # fmt: skip


def dialogue(contexts: TokenizedCorpus) -> torch.Tensor:
    """1 for tokens within quotation marks, 0 for others."""
    labels = torch.zeros_like(contexts.tokens)
    for row, document in enumerate(contexts.document.tolist()):
        text = contexts.corpus.documents[document].text
        inside = np.zeros(len(text) + 1, dtype=bool)
        for found in QUOTED.finditer(text):
            inside[found.start() : found.end()] = True
        starts = contexts.spans[row, :, 0].clamp(0, len(text)).numpy()
        labels[row] = torch.from_numpy(inside[starts].astype(np.int64))
    return labels


def show(title: str, bench: Bench, labels: torch.Tensor) -> None:
    """A contrast within documents, and the same with sides swapped at random."""
    found = responses(bench.activations, bench.site, bench.units, labels=labels)
    side = found.classes == 1
    say(title, contrast(found, side, derived(0, "contrast")))
    draws = np.random.default_rng(0).random(int(found.groups.max()) + 1) < 0.5
    say(f"{title}, sides swapped at random", contrast(found, side ^ draws[found.groups],
        derived(0, "contrast")))  # fmt: skip


def twins(bench: Bench, stories, tokens: int) -> None:
    """The bundled model against its twin, and against itself."""
    tuned = tune(bench.subject, stories)
    texts = tokenize(stories, bench.subject.tokenizer, context_tokens=LENGTH)
    prompts = texts.select("heldout").take(tokens // 4, derived(0, "stories"))
    for name, model in (("itself", bench.subject), ("its twin", tuned)):
        pairs = [both(bench, subject, prompts) for subject in (bench.subject, model)]
        base, other = (joined for joined, _ in pairs)
        side = pairs[0][1]
        change = model_change(base, other, derived(0, "signs"))
        counts = {kind: change.kinds.count(kind) for kind in dict.fromkeys(change.kinds)}
        print(f"bundled against {name}: {counts}")
        say(
            f"raised for stories, {name}", raised_responses(base, other, side, derived(0, "raised"))
        )


def both(bench: Bench, subject: Subject, prompts: TokenizedCorpus) -> tuple[Responses, np.ndarray]:
    """Responses to code and to stories together."""
    parts = [
        responses(harvest(subject, contexts, bench.site, progress=SILENT), bench.site, bench.units)
        for contexts in (bench.contexts, prompts)
    ]
    first = len(parts[0].names)
    joined = Responses(
        groups=np.concatenate([parts[0].groups, parts[1].groups + first]),
        names=(*parts[0].names, *(f"story/{name}" for name in parts[1].names)),
        classes=np.concatenate([p.classes for p in parts]),
        tokens=np.concatenate([p.tokens for p in parts]),
        means=np.concatenate([p.means for p in parts]),
        rates=np.concatenate([p.rates for p in parts]),
    )
    return joined, np.arange(len(joined)) >= len(parts[0])


def tune(subject: Subject, stories, steps: int = 30) -> Subject:
    """The model after some steps on stories that are not measured."""
    module = copy.deepcopy(subject.module).requires_grad_(True)
    texts = tokenize(stories, subject.tokenizer, context_tokens=LENGTH)
    some = texts.select("fit").take(steps * 8 * LENGTH, derived(1, "training"))[: steps * 8]
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-4)
    losses = []
    for batch, mask in zip(some.tokens.split(8), some.mask.split(8), strict=True):
        labels = batch.masked_fill(~mask, -100)
        loss = module(input_ids=batch, attention_mask=mask.long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().item())
    print(f"twin: {len(losses)} steps, loss {losses[0]:.2f} to {np.mean(losses[-5:]):.2f} nats")
    return load_subject(module.requires_grad_(False), tokenizer=subject.tokenizer)


def say(title: str, found: Contrast) -> None:
    """One line."""
    share, low, high = found.replication_share
    sign = found.sign_share[0]
    best = found.discovered[:5]
    print(
        f"{title}: {len(found.discovered)} of {len(found.q_value)} discovered on "
        f"{found.n_discovery} items; {share:.1%} [{low:.1%}, {high:.1%}] replicate, {sign:.1%} "
        f"same sign; largest AUROC {np.round(found.replication.auroc[best], 3).tolist()}",
        flush=True,
    )


if __name__ == "__main__":
    main()
