"""Error and dead latents against tokens and seconds, here and in other libraries.

    python -m benchmarks.peers.quality [--tokens N] [--python PATH]

TopK at the same k on the same float32 rows in the same order: the bundled model's middle residual
site, harvested once. First every library trains at several learning rates, which are printed; then
each trains again at its best one, all in turns, and is judged by held-out rows between windows.
Seconds are those of the steps alone. Warm-up and decay take the same shares of the run, but
sparsify decays linearly from the start and its signum not at all, as it has them.
"""

import argparse
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.activations import Rows, activations
from benchmarks.peers.environment import REPOSITORY, add_option, peers_python
from benchmarks.peers.trainers.job import TRAINERS, Job
from benchmarks.peers.workers import Worker

RATES = {
    "modelassay": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "sae-lens": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "dictionary-learning": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "sparsify": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "sparsify (signum)": (1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
}
"""A factor of two apart (ours). A best rate at either end asks for more of them: `--rates`."""


def train(
    jobs: Sequence[Job], windows: int, peers: Path, options: argparse.Namespace
) -> list[list[dict[str, Any]]]:
    """Every job to its end, in turns; what was found after each window."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(job, peers, threads=options.threads, verbose=options.verbose)
            )
            for job in jobs
        ]
        for worker in workers:
            worker.wait_until_ready()
        found: list[list[dict[str, Any]]] = [[] for _ in jobs]
        seconds = [0.0 for _ in jobs]
        for window in range(windows):
            for i, (worker, job) in enumerate(zip(workers, jobs, strict=True)):
                begin, end = (job.steps * w // windows for w in (window, window + 1))
                seconds[i] += worker.ask(steps=end - begin, units=False)["seconds"]
                point = {"tokens": end * job.batch, "seconds": seconds[i]}
                found[i].append(point | worker.ask(evaluate=True))
    return found


def best_rates(
    job: Job, trainers: Sequence[str], peers: Path, options: argparse.Namespace
) -> dict[str, float]:
    """The rate of least held-out error of each trainer, with the sweep printed."""
    print("| trainer | rate | error | L0 | dead |\n|---|---|---|---|---|", flush=True)
    best: dict[str, float] = {}
    for trainer in trainers:
        rates = rates_of(trainer, options.rates)
        if len(rates) == 1:
            best[trainer] = rates[0]
            continue
        errors: dict[float, float] = {}
        with Worker(
            replace(job, trainer=trainer), peers, threads=options.threads, verbose=options.verbose
        ) as worker:
            worker.wait_until_ready()
            for rate in rates:
                worker.ask(rate=rate)
                worker.ask(steps=job.steps, units=False)
                end = worker.ask(evaluate=True)
                errors[rate] = end["error"]
                print(
                    f"| {trainer} | {rate:g} | {end['error']:.4f} | {end['l0']:.1f} | "
                    f"{end['dead']:.3f} |",
                    flush=True,
                )
        best[trainer] = min(errors, key=lambda rate: (math.isnan(errors[rate]), errors[rate]))
    return best


def rates_of(trainer: str, asked: Sequence[str] | None) -> tuple[float, ...]:
    """The rates to try: those asked for by ``trainer:rate`` or for all, or else the usual ones."""
    pairs = [text.rpartition(":") for text in asked or ()]
    found = tuple(float(rate) for name, _, rate in pairs if name in ("", trainer))
    return found or RATES[trainer]


def label(job: Job) -> str:
    """A trainer, and how many rows it sees again and again, if not all."""
    return job.trainer if job.distinct is None else f"{job.trainer} on {job.distinct:,} rows"


def print_curves(
    jobs: Sequence[Job], found: Sequence[Sequence[dict[str, Any]]], rows: Rows
) -> None:
    """Every window of every trainer, and the first at which each reaches the others' ends."""
    print(
        "\n| trainer | rate | tokens | seconds | with our harvest | error | L0 | dead |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for job, points in zip(jobs, found, strict=True):
        for point in points:
            harvested = min(point["tokens"], job.distinct or rows.n_fit)
            point["harvested"] = point["seconds"] + harvested / rows.tokens_per_second
            print(
                f"| {label(job)} | {job.rate:g} | {point['tokens']:,} | {point['seconds']:.1f} | "
                f"{point['harvested']:.1f} | {point['error']:.4f} | {point['l0']:.1f} | "
                f"{point['dead']:.3f} |"
            )
    print(
        "\n| the error at which it ends | is reached by | seconds | with our harvest | tokens |\n"
        "|---|---|---|---|---|"
    )
    for target, ends in zip(jobs, found, strict=True):
        for job, points in zip(jobs, found, strict=True):
            reached = next((p for p in points if p["error"] <= ends[-1]["error"]), None)
            said = "– | – | –"
            if reached:
                times = f"{reached['seconds']:.1f} | {reached['harvested']:.1f}"
                said = f"{times} | {reached['tokens']:,}"
            print(f"| {label(target)}, {ends[-1]['error']:.4f} | {label(job)} | {said} |")


def main() -> None:
    """Print the sweep and the curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_option(parser)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="seen in training")
    parser.add_argument("--rows", type=int, default=1_000_000, help="distinct ones harvested")
    parser.add_argument(
        "--distinct", type=int, nargs="*", default=[],
        help="train ours on so few rows, again and again, besides",
    )  # fmt: skip
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=10, help="points of each curve")
    parser.add_argument("--trainers", default=",".join(TRAINERS), help="comma-separated")
    parser.add_argument(
        "--rates", nargs="+",
        help="of the sweep, for every trainer or as trainer:rate; a single one is taken as it is",
    )  # fmt: skip
    parser.add_argument(
        "--own-window",
        action="store_true",
        help="dead latents by each library's own window, which short runs never reach",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--verbose", action="store_true", help="show what the libraries print")
    options = parser.parse_args()
    peers = peers_python(options.python)
    trainers = options.trainers.split(",")
    rows = activations(REPOSITORY / "out/peers", options.rows)
    print(
        f"{rows.site} of the bundled model, d={rows.d}, width {options.width}, k={options.k}; "
        f"{rows.n_fit:,} rows, harvested at {rows.tokens_per_second:,.0f} tokens/s; "
        f"{options.threads} threads, load {os.getloadavg()[0]:.1f}\n"
    )
    job = Job(
        trainer=trainers[0], architecture="topk", d=rows.d, width=options.width, k=options.k,
        batch=options.batch, steps=options.tokens // options.batch, data=rows.path,
        short_window=not options.own_window,
    )  # fmt: skip
    rates = best_rates(job, trainers, peers, options)
    jobs = [replace(job, trainer=t, rate=rates[t]) for t in trainers]
    ours = [j for j in jobs if j.trainer == "modelassay"]
    jobs += [replace(j, distinct=n) for j in ours for n in options.distinct]
    print_curves(jobs, train(jobs, options.windows, peers, options), rows)
    print(
        "\nNot measured: the other libraries' own ways from a model to activations; see README.md."
    )


if __name__ == "__main__":
    main()
