"""What reading activations costs, as ratios against the bare forward pass in the same run.

    python -m benchmarks.access

Rounds are interleaved and the minimum over rounds is compared, so that a noisy machine slows all
ways alike.
"""

import tempfile
import time
from collections.abc import Callable

import torch

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.activations.harvest import harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

ROUNDS = 9
BATCH = 32
HARVEST_CONTEXTS = 512


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def fastest(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least seconds of each way over interleaved rounds, after one round of warming up."""
    times = {name: [seconds(work) for _ in range(1)] for name, work in ways.items()}
    times = {name: [] for name in times}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(seconds(work))
    return {name: min(values) for name, values in times.items()}


def access_ways(subject: Subject, contexts: TokenizedCorpus) -> dict[str, Callable[[], object]]:
    """The bare forward pass and ours."""
    tokens = contexts.tokens[:BATCH]
    residual = [Site("resid_pre", 0)]
    residual += [Site("resid_post", layer) for layer in range(subject.n_layers)]

    def bare() -> None:
        with torch.no_grad():
            subject.module(tokens, use_cache=False)

    def read_all() -> None:
        subject.run(tokens, read=residual)

    def stop_in_the_middle() -> None:
        site = Site("resid_post", subject.n_layers // 2 - 1)
        subject.run(tokens, read=[site], until=site)

    return {"bare": bare, "read all residual sites": read_all, "stop halfway": stop_in_the_middle}


def harvest_ways(subject: Subject, contexts: TokenizedCorpus) -> dict[str, Callable[[], object]]:
    """The bare forward pass over many contexts, and harvests of one site from them."""
    middle = Site("resid_post", subject.n_layers // 2 - 1)
    last = Site("resid_post", subject.n_layers - 1)

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, len(contexts), BATCH):
                subject.module(contexts.tokens[start : start + BATCH], use_cache=False)

    def to_disk(site: Site) -> Callable[[], object]:
        def work() -> None:
            with tempfile.TemporaryDirectory() as folder:
                harvest(
                    subject, contexts, site, directory=f"{folder}/store", batch_contexts=BATCH,
                    progress=SILENT,
                )  # fmt: skip

        return work

    return {
        "bare": bare,
        "harvest to disk, last layer": to_disk(last),
        "harvest to disk, middle layer (stops there)": to_disk(middle),
    }


def main() -> None:
    """Print both tables."""
    subject = load_subject("bundled")
    corpus = stdlib_corpus().select("fit")
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=256)
    contexts = contexts[contexts.mask.all(1)][:HARVEST_CONTEXTS]
    print(f"{subject.name}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| way | ms per batch of 32 x 256 | time over the bare forward |\n|---|---|---|")
    times = fastest(access_ways(subject, contexts), ROUNDS)
    for name, value in times.items():
        print(f"| {name} | {1000 * value:.1f} | {value / times['bare']:.3f} |")
    print("\n| way | tokens/s | of the bare forward's |\n|---|---|---|")
    times = fastest(harvest_ways(subject, contexts), 3)
    for name, value in times.items():
        rate = contexts.mask.sum().item() / value
        print(f"| {name} | {rate:,.0f} | {times['bare'] / value:.2f} |")


if __name__ == "__main__":
    main()
