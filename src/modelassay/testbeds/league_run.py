"""Run a league: methods on testbeds over seeds, in parallel processes.

    <out>/config.json                          what was asked for
    <out>/rows/<testbed>/<method>.seed<n>.json  what is finished, one file per unit of work
    <out>/rows/<testbed>/known.json, pictures.json
    <out>/league.json, <out>/pictures.json     the result

An interrupted league goes on from `rows/`, and so does one in which something failed. The result
does not depend on how many processes there are, but for the seconds.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modelassay.core.errors import OutputExistsError, ProvenanceError, ValueRangeError
from modelassay.core.files import (
    prepare_output,
    read_json,
    sha256_of_file,
    translate_os_errors,
    write_json,
)
from modelassay.core.progress import SILENT, Progress, Task
from modelassay.core.provenance import Provenance
from modelassay.testbeds.catalogue import kinds_with, load_kinds
from modelassay.testbeds.league import Failure, League, MethodEntry, TestbedEntry
from modelassay.testbeds.league_job import (
    Done,
    Job,
    Now,
    drawings_path,
    known_path,
    play,
    rows_path,
)
from modelassay.testbeds.league_storage import Row, drawings_from, known_from, row_from
from modelassay.testbeds.methods import METHODS, Method, method_named
from modelassay.testbeds.registry import TestbedKind, find
from modelassay.testbeds.workers import run_jobs

_OURS = ("config.json", "rows", "league.json", "pictures.json", "league.html")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeagueConfig:
    """What `modelassay testbeds run` was asked for."""

    testbeds: tuple[str, ...] = ()
    """Names, or "all"; none means those of `source`, or all."""
    methods: tuple[str, ...] = ()
    """Names; none means all."""
    seeds: int = 3
    """Constructions of each testbed."""
    seed: int = 0
    """Of the first construction; the others follow."""
    fits: int = 1
    """Of each method to each construction."""
    jobs: int = 2
    """Processes side by side."""
    source: Path | None = None
    """A user's file of testbeds."""
    out: Path = Path("out/testbeds")
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "fits", "jobs"):
            if getattr(self, name) < 1:
                raise ValueRangeError(
                    f"{name} must be at least 1; got {getattr(self, name)}. Raise it."
                )


def run_league(config: LeagueConfig, progress: Progress = SILENT) -> League:
    """Run what is asked for, save it in `config.out`, and return it.

    What fails is part of the result (`League.failures`), with its reason.

    Raises:
        UnknownNameError: if a testbed or a method is not known.
        OutputExistsError: if `out` holds something and neither `resume` nor `force` is set.
        ProvenanceError: if `resume` finds another configuration.
        WorkerError: if a worker process dies, or cannot write.
    """
    kinds, methods = _chosen_testbeds(config), _chosen_methods(config)
    _prepare(config, kinds, methods)
    jobs = list(_jobs(config, kinds, methods))
    failures: list[Failure] = []
    with progress.task(
        "Playing the league", total=sum(len(job.todo) for job in jobs), unit="fit"
    ) as task:
        _play_all(jobs, config.jobs, failures, task)
    league = _collect(config, kinds, methods, failures)
    league.save(config.out)
    return league


def _play_all(jobs: list[Job], processes: int, failures: list[Failure], task: Task) -> None:
    def on_message(message: Any) -> None:
        if isinstance(message, Now):
            task.now(message.what)
        elif isinstance(message, Done):
            task.advance(message.count)
        else:
            failures.append(message)

    if jobs:
        run_jobs(play, jobs, processes=processes, on_message=on_message)


def _chosen_testbeds(config: LeagueConfig) -> list[TestbedKind]:
    if config.testbeds:
        return find(config.testbeds, kinds_with(config.source))
    return find(["all"], load_kinds(config.source) if config.source else kinds_with(None))


def _chosen_methods(config: LeagueConfig) -> list[Method]:
    return [method_named(name) for name in dict.fromkeys(config.methods or METHODS)]


def _seeds(config: LeagueConfig) -> tuple[int, ...]:
    return tuple(range(config.seed, config.seed + config.seeds))


def _prepare(config: LeagueConfig, kinds: list[TestbedKind], methods: list[Method]) -> None:
    """Claim the folder: with `resume` what is there stays, with `force` it goes."""
    asked = config.out / "config.json"
    identity: dict[str, Any] = {
        "testbeds": [kind.name for kind in kinds],
        "methods": [method.name for method in methods],
        "seeds": list(_seeds(config)),
        "fits": config.fits,
        "source": config.source and sha256_of_file(config.source),
        "modelassay": version("modelassay"),
    }
    if config.resume and asked.is_file():
        if read_json(asked) != identity:
            raise ProvenanceError(
                f"--resume must repeat the league in {str(config.out)!r}; got other options than "
                f"{read_json(asked)}. Repeat those, or start anew with --force."
            )
        return
    if asked.is_file() and not config.force:
        raise OutputExistsError(
            f"The output folder must be empty; got {str(config.out)!r} with a league in it. "
            "Go on with --resume, or start anew with --force."
        )
    prepare_output(config.out, force=config.force)
    with translate_os_errors(config.out):
        for earlier in (config.out / name for name in _OURS):
            if earlier.is_dir():
                shutil.rmtree(earlier)
            else:
                earlier.unlink(missing_ok=True)
    write_json(asked, identity)


def _jobs(config: LeagueConfig, kinds: list[TestbedKind], methods: list[Method]) -> Iterator[Job]:
    """What is left to do; first seeds first, as known numbers and pictures make them longest."""
    names = tuple(method.name for method in methods)
    for seed in _seeds(config):
        for kind in kinds:
            first = seed == config.seed
            job = Job(
                testbed=kind.name,
                seed=seed,
                methods=names,
                todo=tuple(
                    name
                    for name in names
                    if not rows_path(config.out, kind.name, name, seed).is_file()
                ),
                fits=config.fits,
                known=first and not known_path(config.out, kind.name).is_file(),
                draw=first and not drawings_path(config.out, kind.name).is_file(),
                folder=config.out,
                source=config.source,
            )
            if job.todo or job.known or job.draw:
                yield job


def _collect(
    config: LeagueConfig, kinds: list[TestbedKind], methods: list[Method], failures: list[Failure]
) -> League:
    """Read what all jobs wrote: what is kept and what was done now look the same."""
    names = [kind.name for kind in kinds]
    known = {name: known_path(config.out, name) for name in names}
    drawn = {name: drawings_path(config.out, name) for name in names}
    order = {name: place for place, name in enumerate(names)}
    return League(
        testbeds=tuple(
            TestbedEntry(
                name=kind.name, title=kind.title, claim=kind.claim, references=kind.references
            )
            for kind in kinds
        ),
        methods=tuple(
            MethodEntry(name=method.name, title=method.title, sees=method.sees)
            for method in methods
        ),
        seeds=_seeds(config),
        fits=config.fits,
        rows=tuple(_rows(config, names, methods)),
        known={n: known_from(read_json(p)["known"]) for n, p in known.items() if p.is_file()},
        drawings={
            n: drawings_from(read_json(p)["pictures"]) for n, p in drawn.items() if p.is_file()
        },
        failures=tuple(sorted(failures, key=lambda f: (order[f.testbed], f.seed))),
        provenance=Provenance.collect(
            seed=config.seed, source=config.source and config.source.name
        ),
    )


def _rows(config: LeagueConfig, testbeds: list[str], methods: list[Method]) -> Iterator[Row]:
    for testbed in testbeds:
        for method in methods:
            for seed in _seeds(config):
                path = rows_path(config.out, testbed, method.name, seed)
                if path.is_file():
                    yield from map(row_from, read_json(path)["rows"])
