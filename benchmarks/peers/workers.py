"""Starts workers in the right environment and talks to them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.environment import REPOSITORY, environment, run_in
from benchmarks.peers.trainers.job import Job


class Worker:
    """One `worker` process; a context manager that ends it."""

    def __init__(self, job: Job, peers: Path, *, threads: int, verbose: bool = False) -> None:
        self.job = job
        python = Path(sys.executable) if job.trainer == "modelassay" else peers
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peers.worker", json.dumps(asdict(job))],
            cwd=REPOSITORY,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            text=True,
        )

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"The worker of {self.job.trainer}, {self.job.architecture}, must answer; it ended "
                f"with code {self.process.wait()}. Run again with --verbose to see its errors."
            )
        return json.loads(line)

    def wait_until_ready(self) -> dict[str, Any]:
        """What it says of itself when it has built its trainer."""
        return self._read()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Its answer to one command; it works only meanwhile."""
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def architectures_of(peers: Path, trainers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What each trainer can make, asked in its own environment."""
    found: dict[str, tuple[str, ...]] = {}
    for name in trainers:
        python = Path(sys.executable) if name == "modelassay" else peers
        printed = run_in(python, "list_architectures", name)
        found |= {
            name: tuple(known) for name, known in json.loads(printed.splitlines()[-1]).items()
        }
    return found
