"""Harvest again and again, killed at every moment at which something reaches the disk.

Run by `test_store.py` as a program of its own: it forks, and its children die by SIGKILL.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modelassay.activations.corpus import corpus_from_texts
from modelassay.activations.harvest import Harvest, harvest
from modelassay.subjects.load import load_subject

MOMENTS = ((os, "fsync"), (Path, "replace"))


def killing(function: Callable[..., Any], calls: "itertools.count[int]", fatal: int) -> Any:
    """The function; its process dies just before the call with the given number."""

    def wrapped(*args: Any, **options: Any) -> Any:
        if next(calls) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return wrapped


def main(model: str, root: Path) -> None:
    """Make `whole`, then `killed-0`, `killed-1`, … until a child lives to the end."""
    torch.set_num_threads(1)
    subject = load_subject(model)
    texts = [f"text number {i} " * 8 for i in range(4)]
    corpus = corpus_from_texts(texts, source="numbers")

    def run(directory: Path) -> Harvest:
        return harvest(
            subject,
            corpus,
            ["resid_post.0", "mlp_out.1"],
            directory=directory,
            context_tokens=32,
            batch_contexts=6,
            shard_bytes=1,
        )

    run(root / "whole")
    for fatal in itertools.count():
        directory = root / f"killed-{fatal}"
        child = os.fork()
        if child == 0:
            calls = itertools.count()
            for owner, name in MOMENTS:
                setattr(owner, name, killing(getattr(owner, name), calls, fatal))
            run(directory)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
