"""How long real fits take, beside what `modelassay plan` says they would.

    python -m benchmarks.forecast

Short runs of the bundled model's activations: streamed from the model, and from memory. The
micro-benchmark runs right before each, so that both see the same machine. A look at the figures,
a first step that faults memory in and a bar are in the measured time, and not in the forecast.
"""

import time
from collections.abc import Callable
from pathlib import Path

import modelassay as ma
from modelassay.activations.source import ActivationSource
from modelassay.activations.streaming import stream_harvest
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import BatchTopK, JumpReLU, Matryoshka, ReLUL1, TopK
from modelassay.fitting.forecast import forecast
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_job import Job
from modelassay.fitting.forecast_measure import measure_hardware
from modelassay.fitting.forecast_model import blocks_until, model_shape

CORPUS_TOKENS = 80_000
BATCH = 2048
RUNS: dict[str, tuple[Callable[[int], Recipe], int, int]] = {
    "TopK 1,024": (lambda width: TopK(width=width, k=16), 1024, 40),
    "TopK 8,192": (lambda width: TopK(width=width, k=32), 8192, 20),
    "BatchTopK 4,096": (lambda width: BatchTopK(width=width, k=32), 4096, 30),
    "Matryoshka 4,096": (lambda width: Matryoshka(width=width, k=32), 4096, 30),
    "ReLU + L1 2,048": (lambda width: ReLUL1(width=width), 2048, 30),
    "JumpReLU 4,096": (lambda width: JumpReLU(width=width, target_l0=32.0), 4096, 30),
}


def compare(
    make: Callable[[int], Recipe], width: int, steps: int, source: ActivationSource, blocks: int
) -> tuple[float, float]:
    """Forecast and measured seconds of one run."""
    job = Job(
        model=model_shape("bundled"),
        blocks_run=blocks,
        dictionaries=(DictionaryShape.of(make(width)),),
        tokens=steps * BATCH,
        batch_tokens=BATCH,
        dead_share=0.0,  # none is dead in so short a run
    )
    hardware = measure_hardware(job, make, device="cpu", folder=Path("out"))
    told = 3600 * forecast(job, hardware, streamed=True).hours
    source.moments()  # made once for any number of runs
    begin = time.perf_counter()
    ma.fit(make(width), source, tokens=steps * BATCH, batch_tokens=BATCH)
    return told, time.perf_counter() - begin


def main() -> None:
    """Print one line per run."""
    subject, corpus = ma.load_subject("bundled"), ma.bundled_corpus()
    site = subject.resolve("resid_post.2")
    layers = model_shape("bundled").layers
    print("| run of the bundled model | forecast s | measured s | measured / forecast |")
    print("|---|---|---|---|")
    stored = ma.harvest(subject, corpus, [site], tokens=CORPUS_TOKENS)
    streamed = stream_harvest(
        subject, corpus, [site], tokens=CORPUS_TOKENS, buffer_tokens=10 * BATCH
    )
    for name, (make, width, steps) in RUNS.items():
        for kind, source, blocks in (
            ("from memory", stored, 0),
            ("streamed", streamed, blocks_until(site, layers)),
        ):
            told, taken = compare(make, width, steps, source, blocks)
            print(f"| {name}, {kind} | {told:.1f} | {taken:.1f} | {taken / told:.2f} |", flush=True)


if __name__ == "__main__":
    main()
