"""What lenses cost and what they are worth.

    python -m benchmarks.lenses             # cost: ratios in one run
    python -m benchmarks.lenses quality     # KL by layer of logit, tuned and Jacobian lenses
    python -m benchmarks.lenses quality babyllama105

Cost compares a lens over 256 tokens with the least that one could do: the bare forward pass and
one product with the unembedding per layer. The real models of the quality table come from the
folder that MODELASSAY_SHARED names; without it, only the bundled model is measured.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from modelassay.activations.corpus import Corpus, read_texts, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.observe.lenses.jacobian import fit_jacobian_lens
from modelassay.observe.lenses.lens import LogitLens
from modelassay.observe.lenses.measures import Final, measure
from modelassay.observe.lenses.quality import LensQuality, measure_lenses
from modelassay.observe.lenses.streams import lens_logits, read_streams
from modelassay.observe.lenses.training import TunedLensRecipe, train_tuned_lens
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

ROUNDS = 15
TOKENS = 256
RECIPE = TunedLensRecipe(steps=60, tokens_per_step=4096)
"""The release's, but for fewer tokens: these models have vocabularies of 67 to 2048."""
HELDOUT_TOKENS = 20_000
PROMPTS = 25
DATA = Path(os.environ.get("MODELASSAY_SHARED", "../shared")) / "data"
TEXTS = {
    "babyllama105": "text_tinystories/stories.txt",
    "shakespeare_gpt2_char": "text_tinyshakespeare/input.txt",
}


def fastest(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least processor seconds of each way over interleaved rounds, after one of warming up.

    Processor time and not the clock's: on a busy machine the clock counts others' work.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, work in ways.items():
            begin = time.process_time()
            work()
            if number:
                times[name].append(time.process_time() - begin)
    return {name: min(values) for name, values in times.items()}


def ways_of(subject: Subject, tokens: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The bare work, the logits of all depths through a lens, and all measures."""
    lens = LogitLens()

    @torch.no_grad()
    def bare() -> object:
        logits = subject.module(tokens, use_cache=False).logits
        head = subject.unembedding_module
        resid = torch.zeros(tokens.shape[1], subject.d_model)
        return logits, [head(resid) for _ in range(subject.n_layers)]

    def logits() -> object:
        streams = read_streams(subject, tokens)
        resid = tuple(stream[0] for stream in streams.resid)
        return list(lens_logits(subject, lens, resid, streams.logits[0]))

    def measures() -> object:
        streams = read_streams(subject, tokens)
        resid = tuple(stream[0] for stream in streams.resid)
        final = Final.of(streams.logits[0], 10)
        targets = tokens[0].roll(-1)
        depths = lens_logits(subject, lens, resid, streams.logits[0])
        return [measure(each, final, targets) for each in depths]

    return {"bare forward and unembeddings": bare, "lens": logits, "lens and measures": measures}


def cost(subject: Subject) -> None:
    """Print the ratios of one model."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, subject.vocab_size, (1, TOKENS), generator=generator)
    times = fastest(ways_of(subject, tokens))
    bare = times["bare forward and unembeddings"]
    for name, value in times.items():
        print(f"| {subject.name} | {name} | {1000 * value:.1f} | {value / bare:.2f} |")


def corpora(names: list[str]) -> Iterator[tuple[str, Subject, Corpus]]:
    """Models that are there, and texts that they can read; all of them for no names."""
    if not names or "bundled" in names:
        yield "bundled", load_subject("bundled"), stdlib_corpus()
    for name, texts in TEXTS.items():
        if (DATA / name).is_dir() and (not names or name in names):
            yield name, load_subject(DATA / name), read_texts(DATA / texts)


def qualities(subject: Subject, corpus: Corpus) -> tuple[LensQuality, ...]:
    """The three lenses of a model on held-out documents."""
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=min(128, subject.context_tokens))
    fit, heldout = contexts.select("fit"), contexts.select("heldout")
    heldout = heldout.take(HELDOUT_TOKENS, torch.Generator().manual_seed(0))
    tuned = train_tuned_lens(subject, fit, recipe=RECIPE)
    long = fit[fit.mask.all(1)]
    jacobian = fit_jacobian_lens(
        subject, long.take(128 * PROMPTS, torch.Generator().manual_seed(0))
    )
    return measure_lenses(subject, [LogitLens(), tuned, jacobian], heldout)


def quality(names: list[str]) -> None:
    """Print KL by depth, and the paired difference of tuned and logit lens."""
    print("| model | layer | logit | tuned | Jacobian | tuned - logit, 95 % |")
    print("|---|---|---|---|---|---|")
    for name, subject, corpus in corpora(names):
        found = qualities(subject, corpus)
        logit, tuned, jacobian = (each.estimates("kl").value.tolist() for each in found)
        gain = found[1].difference(found[0], "kl")
        for depth, layer in enumerate(found[0].depths[:-1]):
            print(
                f"| {name} | {layer} | {logit[depth]:.3f} | {tuned[depth]:.3f} | "
                f"{jacobian[depth]:.3f} | {gain.value[depth]:+.3f} "
                f"[{gain.low[depth]:+.3f}, {gain.high[depth]:+.3f}] |",
                flush=True,
            )


def main() -> None:
    """Print the table that is asked for."""
    if "quality" in sys.argv[1:]:
        quality(sys.argv[2:])
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {TOKENS} tokens\n")
    print("| model | way | ms of processor time | ratio |\n|---|---|---|---|")
    names = [name for name in TEXTS if (DATA / name).is_dir()]
    for subject in (load_subject("bundled"), *(load_subject(DATA / name) for name in names)):
        if subject.context_tokens >= TOKENS:
            cost(subject)


if __name__ == "__main__":
    main()
