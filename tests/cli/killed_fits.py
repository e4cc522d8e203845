"""Fit from the command line again and again, killed or interrupted at many moments; go on; compare.

Run by `test_killed_fits.py` as a program of its own: it forks, and its children, each of which is a
`modelassay fit`, die by SIGKILL or end by Ctrl-C.
"""

import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from modelassay.cli import fitting
from modelassay.cli.main import app
from modelassay.fitting import trainer
from modelassay.fitting.weights import TrainedWeights

STEPS = 30
FIT = ["--site", "resid_post.2", "--site", "mlp_out.0", "--width", "24", "--k", "3"]
FIT += ["--tokens", str(2048 * STEPS), "--learning-rate", "0.01", "--seed", "1"]


class Killer:
    """Sends a signal to its process at the call with a given number, before or after it."""

    def __init__(self, fatal: int, number: int = signal.SIGKILL) -> None:
        self.calls = itertools.count()
        self.fatal = fatal
        self.number = number

    def at(self, owner: Any, name: str) -> None:
        """Count the calls of a function."""
        function: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            if next(self.calls) == self.fatal:
                os.kill(os.getpid(), self.number)
            return function(*args, **options)

        setattr(owner, name, wrapped)


def in_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; how that ended, as `os.waitpid` says."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            traceback.print_exc()
            os._exit(70)
    return os.waitpid(child, 0)[1]


def fit(store: Path, out: Path, *options: str, killer: Killer | None = None) -> int:
    """`modelassay fit` in a child, whose last checkpoint is kept beside its folder."""

    def work() -> None:
        trainer.SAVE_EVERY_SECONDS = 0.0  # a checkpoint at each look, and at the end
        if killer is not None:
            # Everything that reaches the disk, and the middle of a step.
            killer.at(os, "fsync")
            killer.at(Path, "replace")
            killer.at(Path, "unlink")
            killer.at(TrainedWeights, "project")

        def keep(folder: Path) -> None:
            kept = out.with_name(f"{out.name}-checkpoint")
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            shutil.rmtree(folder)

        fitting.shutil = SimpleNamespace(rmtree=keep)
        arguments = ["fit", str(store), *FIT, "--out", str(out), *options]
        code = app(arguments, standalone_mode=False, prog_name="modelassay")
        os._exit(int(code or 0))

    return in_child(work)


def main(store: Path, root: Path, moments: Sequence[str]) -> None:
    """Make `whole`; then `SIGKILL-N` and `SIGINT-N`: begun, ended at call N, and gone on with.

    What the checkpoint said when the process had ended is kept as `SIGKILL-N-begun`.
    """
    torch.set_num_threads(1)
    assert fit(store, root / "whole") == 0
    for moment in moments:
        name, fatal = moment.split("-")
        number = signal.Signals[name]
        status = fit(store, root / moment, killer=Killer(int(fatal), number))
        ended = -number if number == signal.SIGKILL else 1
        assert os.waitstatus_to_exitcode(status) == ended, (moment, status)
        index = root / moment / "checkpoint" / "checkpoint.json"
        if index.exists():
            shutil.copy(index, root / f"{moment}-begun")
        assert fit(store, root / moment, "--resume") == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
