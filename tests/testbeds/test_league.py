"""Leagues from end to end, on the documentation's testbed, in real worker processes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from modelassay.core.errors import (
    CorruptFileError,
    OutputExistsError,
    ProvenanceError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.testbeds.catalogue import TESTBEDS, kinds_with, load_kinds
from modelassay.testbeds.league import League, load_league
from modelassay.testbeds.league_job import Done, Failure, Job, Now, play, rows_path
from modelassay.testbeds.league_run import LeagueConfig, run_league
from modelassay.testbeds.league_storage import Row
from tests.testbeds.one_file import BROKEN, write_example

pytestmark = pytest.mark.slow
METHODS = ("neurons", "topk", "lib")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("source"), more=BROKEN)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, source: Path) -> tuple[LeagueConfig, League]:
    config = LeagueConfig(
        methods=METHODS, seeds=2, jobs=2, source=source, out=tmp_path_factory.mktemp("out") / "a"
    )
    return config, run_league(config)


def timeless(rows: tuple[Row, ...]) -> list[str]:
    """As text, in which NaN equals itself."""
    return [repr(replace(row, seconds=0.0)) for row in rows]


def test_every_method_has_a_row_in_every_arm_and_construction(played) -> None:
    _, league = played
    places = [(r.testbed, r.method, r.seed, r.arm) for r in league.rows]
    assert places == [("sums", m, s, a) for m in METHODS for s in (0, 1) for a in ("near", "far")]
    assert all(row.fit == 0 and row.seconds > 0 for row in league.rows)


def test_what_sees_activations_is_at_chance_and_what_sees_the_model_is_not(played) -> None:
    _, league = played
    for name in ("neurons", "topk"):
        standing = league.standing("sums", name)
        assert standing is not None
        pad = standing.pad_beyond_chance
        assert pad.low == pad.value == pad.high == 0
    lib = league.standing("sums", "lib")
    assert lib is not None
    assert lib.pad_beyond_chance.value == 1
    assert lib.v.value > 0.9


def test_a_testbed_that_cannot_be_built_is_reported_with_its_reason(played) -> None:
    _, league = played
    assert [(f.testbed, f.seed, f.what) for f in league.failures] == [
        ("broken", 0, "building"),
        ("broken", 1, "building"),
    ]
    assert league.failures[0].reason == "ArithmeticError: no construction 0"
    assert league.arms("broken") == ()
    assert league.standing("broken", "topk") is None


def test_known_numbers_are_measured_once(played) -> None:
    _, league = played
    (known,) = league.known["sums"]
    assert known.reproduced
    assert known.name == "share of active features"


def test_a_league_is_read_back_as_it_was(played) -> None:
    config, league = played
    again = load_league(config.out)
    assert repr(again) == repr(league)


def test_resumed_in_one_process_it_gives_the_same_bit_for_bit(played, tmp_path: Path) -> None:
    config, league = played
    other = replace(config, out=tmp_path / "b", jobs=1)
    run_league(other)
    for path in (other.out / "rows").rglob("topk*.json"):
        path.unlink()
    kept = rows_path(other.out, "sums", "lib", 1).stat().st_mtime_ns
    resumed = run_league(replace(other, resume=True))
    assert rows_path(other.out, "sums", "lib", 1).stat().st_mtime_ns == kept
    assert timeless(resumed.rows) == timeless(league.rows)
    assert resumed.known == league.known


def test_nothing_is_overwritten_or_mixed(played, source: Path) -> None:
    config, _ = played
    with pytest.raises(OutputExistsError, match="with a league in it"):
        run_league(config)
    with pytest.raises(ProvenanceError, match="--resume must repeat the league"):
        run_league(replace(config, resume=True, seeds=3))
    with pytest.raises(UnknownNameError, match="Did you mean 'topk'"):
        run_league(replace(config, methods=("topkk",)))
    with pytest.raises(UnknownNameError, match="Did you mean 'sums'"):
        run_league(replace(config, testbeds=("sum",)))
    with pytest.raises(ValueRangeError, match="jobs must be at least 1; got 0"):
        LeagueConfig(jobs=0)


def test_a_damaged_league_is_refused(played, tmp_path: Path) -> None:
    config, _ = played
    content = json.loads((config.out / "league.json").read_text("utf-8"))
    (tmp_path / "pictures.json").write_text("{}", "utf-8")
    for change, message in (
        ({"schema_version": 99}, "schema_version 1; got 99"),
        ({"rows": None}, "none of 'rows'"),
    ):
        damaged = {k: v for k, v in (content | change).items() if v is not None}
        (tmp_path / "league.json").write_text(json.dumps(damaged), "utf-8")
        with pytest.raises(CorruptFileError, match=message):
            load_league(tmp_path)


def test_fits_are_told_apart_and_a_job_says_what_it_does(source: Path, tmp_path: Path) -> None:
    messages: list[object] = []
    job = Job(
        testbed="sums",
        seed=0,
        methods=("random",),
        todo=("random",),
        fits=2,
        known=False,
        draw=True,
        folder=tmp_path,
        source=source,
    )
    play(job, messages.append)
    assert messages == [
        Now("sums, seed 0: building"),
        Now("sums, seed 0: random"),
        Done(1),
        Now("sums, seed 0: pictures"),
    ]
    rows = json.loads(rows_path(tmp_path, "sums", "random", 0).read_text("utf-8"))["rows"]
    assert [(row["fit"], row["arm"]) for row in rows] == [
        (0, "near"), (0, "far"), (1, "near"), (1, "far"),
    ]  # fmt: skip
    assert rows[0]["s_graph"] != rows[2]["s_graph"]
    assert math.isfinite(rows[0]["seconds"])


def test_a_method_that_raises_does_not_take_the_others_with_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("modelassay.testbeds.league_job.rows_of", fail)
    messages: list[object] = []
    job = Job(
        testbed="sums", seed=0, methods=("pca",), todo=("pca",), fits=1,
        known=False, draw=False, folder=tmp_path, source=source,
    )  # fmt: skip
    play(job, messages.append)
    reason = "ZeroDivisionError: by zero"
    assert messages[2:] == [
        Failure(testbed="sums", seed=0, what="pca", reason=reason),
        Done(1),
    ]


def test_a_file_of_testbeds_must_hold_some_under_new_names(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("KINDS = ()\n", "utf-8")
    with pytest.raises(ValueRangeError, match=r"must define KINDS.*got \(\) in 'empty.py'"):
        load_kinds(path)
    with pytest.raises(FileNotFoundError):
        load_kinds(tmp_path / "absent.py")
    path = write_example(tmp_path, more="\nKINDS += KINDS\n")
    with pytest.raises(ValueRangeError, match="a name of its own"):
        load_kinds(path)
    assert kinds_with(None) == TESTBEDS
