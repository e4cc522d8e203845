"""One job of a league: a testbed at one seed, with every method that is asked for.

The testbed is built once. A method that sees activations alone is fitted once and scored in every
arm: the arms' activations are the same bit for bit (`Testbed` has checked it), so that a fit in
another arm would be the same fit. A method that sees the model is fitted in each arm.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from modelassay.core.errors import ModelassayError
from modelassay.core.files import write_json
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.catalogue import kinds_with
from modelassay.testbeds.league import Failure
from modelassay.testbeds.league_storage import Row, drawings_json, known_json
from modelassay.testbeds.methods import Method, method_named
from modelassay.testbeds.scores import Scores, own_arm_nearest
from modelassay.testbeds.testbed import Testbed
from modelassay.testbeds.workers import Send

_LOGGER = logging.getLogger(__name__)
_FIT_STRIDE = 1000  # seeds of the fits to one construction lie this far apart (ours)
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one worker does at a time."""

    testbed: str
    seed: int
    methods: tuple[str, ...]
    """All that take part, for the pictures."""
    todo: tuple[str, ...]
    """Those whose rows are not there yet."""
    fits: int
    known: bool
    """Whether to reproduce the known numbers."""
    draw: bool
    """Whether to draw the pictures."""
    folder: Path
    source: Path | None
    """A user's file of testbeds."""

    def __str__(self) -> str:
        return f"{self.testbed}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Now:
    """What a worker has begun."""

    what: str


@dataclass(frozen=True, slots=True)
class Done:
    """Methods whose rows are written, or that failed."""

    count: int


def rows_path(folder: Path, testbed: str, method: str, seed: int) -> Path:
    """Where the rows of one method on one construction are kept."""
    return _folder(folder, testbed) / f"{quote(method, safe='')}.seed{seed}.json"


def known_path(folder: Path, testbed: str) -> Path:
    """Where a testbed's known numbers are kept."""
    return _folder(folder, testbed) / "known.json"


def drawings_path(folder: Path, testbed: str) -> Path:
    """Where a testbed's pictures are kept."""
    return _folder(folder, testbed) / "pictures.json"


def _folder(folder: Path, testbed: str) -> Path:
    return folder / "rows" / quote(testbed, safe="")


def play(job: Job, send: Send) -> None:
    """Do a job: write what it finds, and send `Now`, `Done` and `Failure` as it goes.

    Raises:
        StorageError: if the folder cannot be written.
    """
    send(Now(f"{job}: building"))
    testbed = _attempt(job, "building", lambda: kinds_with(job.source)[job.testbed].build(job.seed))
    if isinstance(testbed, Failure):
        send(testbed)
        send(Done(len(job.todo)))
        return
    made: dict[str, Decomposition] = {}
    for name in job.todo:
        send(Now(f"{job}: {name}"))
        rows = _attempt(job, name, partial(rows_of, testbed, method_named(name), job, made))
        if isinstance(rows, Failure):
            send(rows)
        else:
            path = rows_path(job.folder, job.testbed, name, job.seed)
            write_json(path, {"rows": [asdict(row) for row in rows]})
        send(Done(1))
    if job.known:
        _reproduce(job, testbed, send)
    if job.draw:
        _draw(job, testbed, made, send)


def rows_of(
    testbed: Testbed, method: Method, job: Job, made: dict[str, Decomposition]
) -> list[Row]:
    """A method's rows; its first decomposition of the first arm goes into `made`."""
    rows: list[Row] = []
    for fit in range(job.fits):
        begun = time.monotonic()
        found = _scored(testbed, method, job.seed + _FIT_STRIDE * fit, fit, made)
        seconds = (time.monotonic() - begun) / len(testbed.arms)
        for arm, (scores, pad, own) in zip(testbed.arms, found, strict=True):
            rows.append(
                Row(
                    testbed=testbed.name,
                    arm=arm.name,
                    method=method.name,
                    seed=job.seed,
                    fit=fit,
                    v=scores.v,
                    match_model=scores.match_model,
                    match_activations=scores.match_activations,
                    found=scores.found,
                    s_graph=scores.s_graph,
                    pad=pad,
                    own=dict(own),
                    seconds=seconds,
                )
            )
    return rows


Found = tuple[Scores, float, Mapping[str, float]]
"""Scores, PAD and the testbed's own scores in one arm."""


def _scored(
    testbed: Testbed, method: Method, seed: int, fit: int, made: dict[str, Decomposition]
) -> list[Found]:
    if method.sees == "activations":
        decomposition = method.make(testbed.arms[0], testbed.size, seed)
        per_arm = [decomposition]
        scores = testbed.scores_in_arms(decomposition)
    else:
        per_arm = [method.make(arm, testbed.size, seed) for arm in testbed.arms]
        scores = None
    if fit == 0:
        made[method.name] = per_arm[0]
    found: list[Found] = []
    for number, arm in enumerate(testbed.arms):
        decomposition = per_arm[number % len(per_arm)]
        in_arms = scores or testbed.scores_in_arms(decomposition)
        affinities = _affinities(testbed, decomposition, in_arms)
        pad = own_arm_nearest(affinities, number) if len(testbed.arms) > 1 else float("nan")
        own = {k: float(v) for k, v in testbed.own_scores(arm, decomposition).items()}
        found.append((in_arms[number], pad, own))
    return found


def _affinities(
    testbed: Testbed, decomposition: Decomposition, scores: Sequence[Scores]
) -> list[float]:
    if testbed.affinity is None:
        return [each.match_model for each in scores]
    return testbed.affinities(decomposition)


def _reproduce(job: Job, testbed: Testbed, send: Send) -> None:
    send(Now(f"{job}: known numbers"))
    numbers = _attempt(job, "known numbers", testbed.known)
    if isinstance(numbers, Failure):
        send(numbers)
    else:
        write_json(known_path(job.folder, job.testbed), {"known": known_json(numbers)})


def _draw(job: Job, testbed: Testbed, made: dict[str, Decomposition], send: Send) -> None:
    send(Now(f"{job}: pictures"))

    def drawings() -> Sequence[object]:
        # Methods that an earlier run has scored are not here, and a failed one never was.
        first: Arm = testbed.arms[0]
        for name in job.methods:
            if name not in made and name not in job.todo:
                made[name] = method_named(name).make(first, testbed.size, job.seed)
        return drawings_json(testbed.draw({n: made[n] for n in job.methods if n in made}))

    drawn = _attempt(job, "pictures", drawings)
    if isinstance(drawn, Failure):
        send(drawn)
    else:
        write_json(drawings_path(job.folder, job.testbed), {"pictures": drawn})


def _attempt(job: Job, what: str, make: Callable[[], Made]) -> Made | Failure:
    """What `make` returns, or the reason why it does not."""
    try:
        return make()
    except ModelassayError as error:
        reason = str(error)
    # A league of many testbeds, some of them users' own, is worth having without the one that
    # fails, whatever failed: the table names it with its reason and the log has the trace.
    except Exception as error:
        _LOGGER.exception("%s: %s could not be done", job, what)
        reason = f"{type(error).__name__}: {error}"
    return Failure(testbed=job.testbed, seed=job.seed, what=what, reason=reason)
