"""What one training step costs here and in other libraries, in units of one encoder product.

    python -m benchmarks.peers.step [--quick] [--python PATH] [--architectures topk,...]

Every trainer is its library's own, with its loss, optimiser and defaults (see trainers/), and runs
in a process of its own with the same number of threads. Workers take turns: a few steps of ours,
a few of a peer's, and so on, so that a loaded machine hurts all alike. The unit is
`[batch, d] x [d, width]` in float32 into memory that is kept, timed right before and after each
step in the same process. Memory is the resident set's peak above what was resident before the
trainer was built: weights, gradients, the optimiser's moments and all temporaries. Batches are
normal random numbers; architectures without a k start where k latents a token are active.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environment import add_option, peers_python
from benchmarks.peers.trainers.job import TRAINERS, Job
from benchmarks.peers.workers import Worker, architectures_of


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a step, and how often it is timed."""

    d: int
    width: int
    batch: int
    rounds: int
    """Turns of every worker."""
    steps: int
    """Steps of a turn."""


SIZES = {
    "small": Size(d=288, width=4608, batch=2048, rounds=6, steps=5),
    "large": Size(d=768, width=12288, batch=4096, rounds=4, steps=3),
}
QUICK = Size(d=288, width=4608, batch=2048, rounds=3, steps=3)
K = 32
WARM_UP_STEPS = 3
RUN_STEPS = 100_000  # what schedules and windows are made for: no latent counts as dead meanwhile
PENALISED = ("jumprelu", "relu", "gated", "p_anneal")  # nothing fixes their number of latents
ARCHITECTURES = ("topk", "batchtopk", "matryoshka", "jumprelu", "relu", "gated", "p_anneal")


def measure(
    architecture: str, size: Size, trainers: Sequence[str], peers: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Steps of every trainer in turns, and its peak memory."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(
                    Job(
                        trainer=trainer,
                        architecture=architecture,
                        d=size.d,
                        width=size.width,
                        k=K,
                        batch=size.batch,
                        steps=RUN_STEPS,
                        start_l0=architecture in PENALISED,
                    ),
                    peers,
                    threads=options.threads,
                    verbose=options.verbose,
                )
            )
            for trainer in trainers
        ]
        versions = [worker.wait_until_ready()["torch"] for worker in workers]
        for worker in workers:
            worker.ask(steps=WARM_UP_STEPS)
        timed: list[list[tuple[float, float]]] = [[] for _ in workers]
        for _ in range(size.rounds):
            for worker, pairs in zip(workers, timed, strict=True):
                pairs += worker.ask(steps=size.steps)["steps"]
        peaks = [worker.ask(peak=True)["peak_bytes"] for worker in workers]
    return [
        {
            "trainer": trainer,
            "torch": version,
            "costs": [cost / unit for cost, unit in pairs],
            "milliseconds": statistics.median(cost for cost, _ in pairs),
            "unit": statistics.median(unit for _, unit in pairs),
            "peak": peak,
        }
        for trainer, version, pairs, peak in zip(trainers, versions, timed, peaks, strict=True)
    ]


def print_rows(architecture: str, rows: Sequence[dict[str, Any]]) -> None:
    """The lines of one architecture."""
    ours = next((row["costs"] for row in rows if row["trainer"] == "modelassay"), None)
    for row in rows:
        costs = row["costs"]
        median = statistics.median(costs)
        ratio = "–" if ours is None else f"{median / statistics.median(ours):.1f}"
        print(
            f"| {architecture} | {row['trainer']}, torch {row['torch']} | "
            f"{median:.2f} ({min(costs):.2f} to {max(costs):.2f}) | "
            f"{ratio} | {row['milliseconds']:.0f} | {row['unit']:.1f} | "
            f"{row['peak'] / 1e6:.0f} |",
            flush=True,
        )


def main() -> None:
    """Print a table per size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_option(parser)
    parser.add_argument("--quick", action="store_true", help="the small size only, fewer rounds")
    parser.add_argument("--sizes", default=",".join(SIZES), help="comma-separated")
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES), help="likewise")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--verbose", action="store_true", help="show what the libraries print")
    options = parser.parse_args()
    peers = peers_python(options.python)
    known = architectures_of(peers, list(TRAINERS))
    sizes = {"small": QUICK} if options.quick else {n: SIZES[n] for n in options.sizes.split(",")}
    for name, size in sizes.items():
        print(
            f"\n{name}: d={size.d}, width={size.width}, batch {size.batch}, k={K}, "
            f"{options.threads} threads, load {os.getloadavg()[0]:.1f} before it\n\n"
            "| architecture | trainer | units, median (least to most) | of ours | ms | unit, ms | "
            "peak MB above data |\n|---|---|---|---|---|---|---|",
            flush=True,
        )
        for architecture in options.architectures.split(","):
            trainers = [trainer for trainer in TRAINERS if architecture in known[trainer]]
            print_rows(architecture, measure(architecture, size, trainers, peers, options))


if __name__ == "__main__":
    main()
