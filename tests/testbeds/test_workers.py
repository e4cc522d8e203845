"""Real processes: what they report, and what happens when one dies."""

import os
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
