"""How long a step takes where latents or tokens are divided between processes of this machine.

    python -m benchmarks.distributed

Every process has one thread. The same batch of 2,048 tokens is learnt from by one process and by
two; the median over steps of the first process, exchange included, and how many times as fast as
one process that is. On more cores than two, `--processes 4` shows more.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

from modelassay.activations.statistics import Moments
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import BatchTopK, TopK
from modelassay.fitting.distributed.processes import ManyProcesses, processes_of
from modelassay.fitting.learners import learners_of
from modelassay.fitting.plan import Plan
from modelassay.subjects.site import Site

D, WIDTH, K, BATCH, STEPS = 288, 4608, 32, 2048, 15
RECIPES = (TopK(width=WIDTH, k=K), BatchTopK(width=WIDTH, k=K))


def milliseconds(recipe: Recipe, latent_shards: int | None) -> float:
    """Median duration of one step of this process, the first steps left out."""
    batches = torch.randn(4, BATCH, D, generator=generator(0)).unbind()
    plan = Plan.of(
        [recipe],
        site=Site.parse("resid_post.0"),
        tokens=100 * BATCH,
        batch_tokens=BATCH,
        learning_rate=1e-3,
        seed=0,
    )
    durations: list[float] = []
    with processes_of(latent_shards, torch.device("cpu")) as (processes, device):
        (learner,) = learners_of(plan, Moments.of(batches[0]), 1.0, device, processes)
        mesh = processes.mesh if isinstance(processes, ManyProcesses) else None
        shard, share = (mesh.token_shard, BATCH // mesh.token_shards) if mesh else (0, BATCH)
        for step in range(STEPS + 3):
            x = batches[step % len(batches)][shard * share : (shard + 1) * share]
            begin = time.perf_counter()
            learner.step(x, step)
            durations.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(durations[3:])


def work(latent_shards: int | None) -> None:
    """Print this process's figures, if it is the first."""
    torch.set_num_threads(1)
    figures = [milliseconds(recipe, latent_shards) for recipe in RECIPES]
    if os.environ.get("RANK", "0") == "0":
        print(*figures)


def measured(n_processes: int, latent_shards: int) -> list[float]:
    """The figures of so many processes."""
    start = [sys.executable, "-m"]
    if n_processes > 1:
        start += [
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(n_processes),
            "-m",
        ]
    command = [*start, "benchmarks.distributed", "--work", str(latent_shards)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [float(figure) for figure in done.stdout.split()]


def main() -> None:
    """Print one line per recipe and way of dividing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work if "RANK" in os.environ else None)
        return
    n = arguments.processes
    print(f"one step, batch {BATCH}, d={D}, width={WIDTH}, k={K}, one thread a process")
    alone = measured(1, 1)
    ways = {"latents divided": n, "tokens divided": 1}
    found = {way: measured(n, shards) for way, shards in ways.items()}
    for i, recipe in enumerate(RECIPES):
        print(f"{type(recipe).__name__:10} 1 process: {alone[i]:6.1f} ms")
        for way, figures in found.items():
            print(
                f"{'':10} {n} processes, {way}: {figures[i]:6.1f} ms,"
                f" {alone[i] / figures[i]:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
