"""Real processes: what they report, and what happens when one dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelassay.core.errors import ValueRangeError, WorkerError
from modelassay.testbeds.workers import Send, run_jobs


def square(job: int, send: Send) -> None:
    send(("begun", job))
    if job == 13:
        os._exit(9)
    if job == 14:
        raise ValueRangeError("job must not be 14; got 14. Choose another.")
    send((job, job * job))


def test_all_jobs_report_and_more_processes_than_jobs_are_not_started() -> None:
    heard: list[Any] = []
    run_jobs(square, [1, 2, 3], processes=2, on_message=heard.append)
    assert {m for m in heard if m[0] != "begun"} == {(1, 1), (2, 4), (3, 9)}
    run_jobs(square, [], processes=2, on_message=heard.append)


@pytest.mark.parametrize(
    ("job", "message"), [(13, "got exit code 9 during 13.*--resume"), (14, "must not be 14")]
)
def test_a_process_that_dies_or_refuses_ends_the_work_with_a_reason(job: int, message: str) -> None:
    heard: list[Any] = []
    with pytest.raises(WorkerError, match=message):
        run_jobs(square, [1, job], processes=1, on_message=heard.append)
    assert (1, 1) in heard  # what was finished had been reported


def test_an_interruption_ends_the_processes() -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(square, [1, 2], processes=2, on_message=interrupt)


def linger(job: int, send: Send) -> None:
    send(os.getpid())
    time.sleep(600)


def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from modelassay.testbeds.workers import run_jobs\n"
        "from tests.testbeds.test_workers import linger\n"
        "if __name__ == '__main__':\n"
        "    report = lambda pid: print(pid, flush=True)\n"
        "    run_jobs(linger, [1], processes=1, on_message=report)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    for _ in range(200):
        if not alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by twenty seconds")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has reaped yet has ended as well.
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
