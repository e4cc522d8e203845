"""Jobs in parallel processes that report as they go.

Each process has one thread, so that a result does not depend on how many run beside it. An
interruption, or a process that dies, ends all of them: what their jobs wrote stays.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from modelassay.core.errors import ModelassayError, WorkerError

Send = Callable[[Any], None]
"""Hands a message to the process that gave the job."""


@dataclass(frozen=True, slots=True)
class _Finished:
    pass


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str


def run_jobs(
    work: Callable[[Any, Send], None],
    jobs: Sequence[Any],
    *,
    processes: int,
    on_message: Callable[[Any], None],
) -> None:
    """Do all jobs, a few at a time, and hand on what they report.

    Args:
        work: does one job; a function at the top of a module, as it runs in another process.
        jobs: plain data.
        processes: how many run side by side.
        on_message: is called here, with what `work` sends.

    Raises:
        WorkerError: if a job raises, or if a process ends before its job is done.
    """
    waiting = list(reversed(jobs))
    with _processes(work, min(processes, len(jobs))) as staff:
        busy: dict[Connection, Any] = {}

        def employ(pipe: Connection) -> None:
            if waiting:
                busy[pipe] = waiting.pop()
                pipe.send(busy[pipe])

        for pipe in staff:
            employ(pipe)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                message = _receive(pipe, staff[pipe], busy[pipe])
                if isinstance(message, _Finished):
                    del busy[pipe]
                    employ(pipe)
                elif isinstance(message, _Refused):
                    raise WorkerError(message.reason)
                else:
                    on_message(message)


def _receive(pipe: Connection, process: SpawnProcess, job: Any) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError) as error:
        process.join()
        raise WorkerError(
            f"A worker process must finish its job; got exit code {process.exitcode} during {job}. "
            "What is finished is kept: go on with --resume, and with fewer --jobs if the memory "
            "ran out."
        ) from error


@contextmanager
def _processes(
    work: Callable[[Any, Send], None], count: int
) -> Generator[dict[Connection, SpawnProcess]]:
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    staff: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()  # so that we read an end of file when the process dies
            staff[ours] = process
        yield staff
    finally:
        for process in staff.values():
            process.terminate()
        for pipe, process in staff.items():
            process.join()
            pipe.close()


def _serve(work: Callable[[Any, Send], None], pipe: Connection) -> None:
    # Ctrl-C reaches the whole group of processes: the one that gave the jobs ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(1)
    while True:
        job = pipe.recv()
        try:
            work(job, pipe.send)
        except ModelassayError as error:
            pipe.send(_Refused(str(error)))
        else:
            pipe.send(_Finished())


def _end_with_the_parent() -> None:
    """A process that was killed cannot end its workers: they would go on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
