"""What one process and many do alike, so that tests can compare what comes out.

As a script it is one of many processes: ``runs.py JOB FOLDER``; see `test_fit.py`.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modelassay.activations.rows import ActivationRows
from modelassay.core.files import write_json, write_tensors
from modelassay.core.progress import SILENT
from modelassay.core.provenance import hash_tensors
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    AnnealedL1,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.fitting import trainer
from modelassay.fitting.distributed.selection import kept_of_all, kept_per_token
from modelassay.fitting.distributed.stream import SharedStream
from modelassay.fitting.fit import fit
from modelassay.fitting.logs import Measurement
from modelassay.fitting.options import TrainingOptions
from modelassay.subjects.site import Site

D, WIDTH, K, BATCH, STEPS = 12, 50, 4, 32, 25
RECIPES: dict[str, Recipe] = {
    "TopK": TopK(width=WIDTH, k=K),
    "frozen decoder": TopK(width=WIDTH, k=K, frozen_decoder=True),
    "BatchTopK": BatchTopK(width=WIDTH, k=K),
    "AbsTopK": AbsTopK(width=WIDTH, k=K),
    "GroupMax": GroupMax(width=48, k=K),
    "many dead": TopK(width=200, k=2),
    "many dead with signs": AbsTopK(width=200, k=2),
    "free decoder": TopK(width=WIDTH, k=K, free_decoder=True),
    "Gated": Gated(width=WIDTH, l1_coefficient=0.5),
    "Matryoshka": Matryoshka(width=WIDTH, k=K, prefixes=(5, 30, WIDTH)),
    "random prefixes": Matryoshka(width=WIDTH, k=K, random_prefixes=3, sparsifier="topk"),
    "JumpReLU": JumpReLU(width=WIDTH, target_l0=float(K), bandwidth=1.0),
    "JumpReLU, tanh": JumpReLU(width=WIDTH, penalty="tanh", coefficient=0.01, bandwidth=1.0),
    "ReLU + L1": ReLUL1(width=WIDTH, l1_coefficient=0.5),
    "annealed": AnnealedL1(width=WIDTH, l1_coefficient=0.5),
}


RESUMED = [RECIPES["many dead"], RECIPES["JumpReLU"], RECIPES["BatchTopK"]]
VARIED = [RECIPES["TopK"], RECIPES["BatchTopK"]]
OPTIONS = TrainingOptions(schedule="cosine", initial_k=30, k_share=0.5, normalisation="whitening")
INTERRUPTED_AT = 8  # step; the processes agree at the next look
CASES = 40


class Figures:
    """A log that keeps what is written to it."""

    def __init__(self) -> None:
        self.rows: list[Measurement] = []

    def write(self, rows: Sequence[Measurement]) -> None:
        self.rows += rows

    def close(self) -> None:
        pass


def activations() -> ActivationRows:
    """Sums of 3 of 40 features, and a constant."""
    generator = torch.Generator().manual_seed(3)
    features = torch.nn.functional.normalize(torch.randn(40, D, generator=generator), dim=1)
    active = torch.rand(1200, 40, generator=generator).topk(3).indices
    codes = torch.zeros(1200, 40).scatter(1, active, 0.5 + torch.rand(1200, 3, generator=generator))
    rows = codes @ features + 0.3
    heldout = torch.arange(len(rows)) % 5 == 0
    return ActivationRows.of(rows, Site.parse("resid_post.0"), heldout=heldout)


def fitted(recipes: Sequence[Recipe], **options: Any) -> dict[str, Tensor]:
    """Weights of every dictionary, and the figures of every look at it."""
    figures = Figures()
    trainer.LOOK_EVERY_STEPS = 5
    dictionaries = fit(
        recipes,
        activations(),
        batch_tokens=BATCH,
        learning_rate=5e-3,
        seed=list(range(len(recipes))),
        progress=SILENT,
        **{"tokens": BATCH * STEPS, "log": [figures]} | options,
    )
    found = {
        f"{i}.{name}": tensor
        for i, dictionary in enumerate(dictionaries)
        for name, tensor in dictionary.parts().tensors.items()
    }
    for i in range(len(recipes)):
        for name in ("loss", "explained_variance", "l0", "dead_share"):
            measured = [getattr(row, name) for row in figures.rows[i :: len(recipes)]]
            found[f"{i}.{name}"] = torch.tensor(measured, dtype=torch.float64)
    return found


def selection_case(case: int, rank: int) -> tuple[Tensor, Tensor, int]:
    """Candidates of one process: of tokens, and of a batch; and how many a token may keep."""
    common = torch.Generator().manual_seed(case)
    k = int(torch.randint(1, 12, (1,), generator=common))
    slots = int(torch.randint(1, 9, (1,), generator=common))
    own = torch.Generator().manual_seed(1000 * case + rank)
    n_entries = int(torch.randint(0, 60, (1,), generator=own))
    if case % 2:  # few different values: many ties, and zeros
        per_token = torch.randint(-2, 4, (7, slots), generator=own).float()
        of_batch = torch.randint(1, 5, (n_entries,), generator=own) / 3
    else:
        per_token = torch.randn(7, slots, generator=own)
        of_batch = torch.rand(n_entries, generator=own) + 1e-6
    return per_token, of_batch, k


def select(folder: Path) -> None:
    """What this process keeps in every case."""
    rank, everyone = dist.get_rank(), dist.group.WORLD
    assert everyone is not None
    kept: dict[str, Tensor] = {}
    for case in range(CASES):
        per_token, of_batch, k = selection_case(case, rank)
        # Candidates come in no particular order.
        order = torch.randperm(per_token.shape[1], generator=torch.Generator().manual_seed(case))
        indices = order.expand(len(per_token), -1)
        shuffled = kept_per_token(per_token[:, order], indices, k, everyone)
        kept[f"{case}.token"] = torch.empty_like(shuffled).scatter_(1, indices, shuffled)
        kept[f"{case}.batch"] = kept_of_all(of_batch, 7 * k, everyone)
    write_tensors(folder / f"kept_{rank}.safetensors", kept)


def save(folder: Path, name: str, found: dict[str, Tensor]) -> None:
    """Write what this process found; the first writes it out, the others a hash of it."""
    weights = {n: t for n, t in found.items() if "dead_share" not in n and t.dtype != torch.float64}
    write_json(folder / f"{name}_{dist.get_rank()}.json", {"hash": hash_tensors(weights)})
    if dist.get_rank() == 0:
        write_tensors(folder / f"{name}.safetensors", found)


def interrupt_at(step: int) -> None:
    """Press Ctrl-C in this process during a step."""
    following, steps = SharedStream.__next__, iter(range(10**6))

    def interrupting(self: SharedStream) -> Tensor:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return following(self)

    SharedStream.__next__ = interrupting


def end_at(step: int) -> None:
    """End this process during a step, without a word."""
    following, steps = SharedStream.__next__, iter(range(10**6))

    def ending(self: SharedStream) -> Tensor:
        if next(steps) == step:
            os._exit(9)
        return following(self)

    SharedStream.__next__ = ending


def in_four(folder: Path) -> None:
    """Fit on a mesh of 2 x 2, choose, and be interrupted."""
    select(folder)
    save(folder, "2x2", fitted(list(RECIPES.values()), latent_shards=2))
    if dist.get_rank() == 3:
        interrupt_at(INTERRUPTED_AT)
    try:
        fitted(RESUMED, latent_shards=4, checkpoint=folder / "checkpoint")
    except KeyboardInterrupt:
        return
    raise AssertionError("The run must be interrupted.")


def in_two(folder: Path) -> None:
    """Fit on meshes of 1 x 2 and 2 x 1, and go on from what others left."""
    save(folder, "1x2", fitted(list(RECIPES.values()), latent_shards=2))
    save(folder, "2x1", fitted(list(RECIPES.values()), latent_shards=1))
    save(folder, "options", fitted(VARIED, latent_shards=2, options=OPTIONS))
    for name in ("from_four", "from_one"):
        save(folder, name, fitted(RESUMED, latent_shards=2, checkpoint=folder / name, resume=True))


def in_two_of_which_one_ends(folder: Path) -> None:
    """Fit until one process is gone."""
    if dist.get_rank() == 1:
        end_at(INTERRUPTED_AT)
    fitted(RESUMED, latent_shards=2, checkpoint=folder / "checkpoint")


def in_two_of_which_one_waits(folder: Path) -> None:
    """Fit while one process does something else."""
    del folder
    if dist.get_rank() == 1:
        time.sleep(200)
        return
    fitted(RESUMED, latent_shards=2)


def in_two_again_and_again(folder: Path) -> None:
    """Come together and part three times, as calls of `fit` in one script do."""
    for time_ in range(3):
        found = fitted(RESUMED[-1:], latent_shards=2, tokens=2 * BATCH)
        if os.environ["RANK"] == "0":
            write_tensors(folder / f"{time_}.safetensors", found)


JOBS = {
    job.__name__: job
    for job in (in_four, in_two, in_two_of_which_one_ends, in_two_of_which_one_waits)
}


def main() -> None:
    """Do a job as one of many processes."""
    if sys.argv[1] == in_two_again_and_again.__name__:
        in_two_again_and_again(Path(sys.argv[2]))
        return
    seconds = 3 if sys.argv[1] == "in_two_of_which_one_waits" else 120
    dist.init_process_group("gloo", timeout=timedelta(seconds=seconds))
    JOBS[sys.argv[1]](Path(sys.argv[2]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
