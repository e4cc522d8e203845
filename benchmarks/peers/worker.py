"""Trains one dictionary of one library in a process of its own, a window at a time.

`step` and `quality` start it in our environment or the peers', tell it on standard input how many
steps to do, and read a JSON object a line. Between windows it sleeps, so that several workers can
take turns on one machine.
"""

import importlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.peers.trainers.job import TRAINERS, Job, StepTrainer

_EVALUATED_AT_ONCE = 2048  # rows


def main() -> None:
    """Serve the job in the first argument until standard input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # the libraries print there
    job = Job(**json.loads(sys.argv[1]))
    module = importlib.import_module(f"benchmarks.peers.trainers.{TRAINERS[job.trainer]}")
    rows, heldout = data_of(job)
    weight, product = torch.randn(job.d, job.width), torch.zeros(job.batch, job.width)
    unit_milliseconds(rows[: job.batch], weight, product)
    # What a library loads when it is first used is no memory of the step.
    tiny = replace(job, d=8, width=64, k=4, batch=16, steps=1000, start_l0=False)
    small = torch.randn(16, 8)
    warm: StepTrainer = module.make(tiny, small)
    for _ in range(3):
        warm.step(small)
    del warm
    baseline = reset_peak()
    sample = rows[: 100 * job.batch]
    trainer: StepTrainer = module.make(job, sample)

    def say(**content: Any) -> None:
        print(json.dumps(content), file=out, flush=True)

    say(ready=True, torch=torch.__version__, threads=torch.get_num_threads())
    done = 0
    for line in sys.stdin:
        command = json.loads(line)
        if "rate" in command:  # begin anew
            job, done = replace(job, rate=command["rate"]), 0
            trainer = module.make(job, sample)
            say(rate=job.rate)
        elif "steps" in command:
            batches = [batch_of(rows, job.batch, done + i) for i in range(command["steps"])]
            done += len(batches)
            if command.get("units", True):
                say(steps=[timed_in_units(trainer, x, weight, product) for x in batches])
            else:
                begin = time.perf_counter()
                for x in batches:
                    trainer.step(x)
                say(seconds=time.perf_counter() - begin)
        elif "evaluate" in command:
            say(**quality(trainer, heldout))
        else:
            say(peak_bytes=peak() - baseline)


def data_of(job: Job) -> tuple[Tensor, Tensor]:
    """Rows to train on and to judge by."""
    if job.data is not None:
        content = load_file(Path(job.data))
        return content["fit"][: job.distinct], content["heldout"]
    generator = torch.Generator().manual_seed(job.seed)
    return torch.randn(4 * job.batch, job.d, generator=generator), torch.zeros(0, job.d)


def batch_of(rows: Tensor, batch: int, step: int) -> Tensor:
    """The batch of a step: the file from its start, again and again."""
    n_batches = len(rows) // batch
    start = step % n_batches * batch
    return rows[start : start + batch].clone()


def unit_milliseconds(x: Tensor, weight: Tensor, product: Tensor) -> float:
    """One dense encoder product into memory that is kept."""
    begin = time.perf_counter()
    torch.mm(x, weight, out=product)
    return 1e3 * (time.perf_counter() - begin)


def timed_in_units(
    trainer: StepTrainer, x: Tensor, weight: Tensor, product: Tensor
) -> tuple[float, float]:
    """Milliseconds of a step, and of the unit right before and after it, on average."""
    before = unit_milliseconds(x, weight, product)
    begin = time.perf_counter()
    trainer.step(x)
    cost = 1e3 * (time.perf_counter() - begin)
    after = unit_milliseconds(x, weight, product)
    return cost, (before + after) / 2


@torch.no_grad()
def quality(trainer: StepTrainer, heldout: Tensor) -> dict[str, float]:
    """Normalised mean squared error, L0 and the share of latents that no held-out row wakes."""
    error = active = 0.0
    fired: Tensor | None = None
    for x in heldout.split(_EVALUATED_AT_ONCE):
        codes, reconstruction = trainer.codes_and_reconstruction(x)
        error += float((x - reconstruction).square().sum())
        active += float((codes != 0).sum())
        seen = (codes != 0).any(0)
        fired = seen if fired is None else fired | seen
    spread = float((heldout - heldout.mean(0)).square().sum())
    assert fired is not None  # there are held-out rows
    return {
        "error": error / spread,
        "l0": active / len(heldout),
        "dead": 1 - float(fired.float().mean()),
    }


def reset_peak() -> int:
    """Bytes resident now; the kernel's high-water mark starts anew from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that were resident since."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


if __name__ == "__main__":
    main()
