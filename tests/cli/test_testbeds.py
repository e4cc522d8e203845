"""`modelassay testbeds`, on the documentation's testbed."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli import testbed_schemas as schemas
from modelassay.cli.main import app
from tests.testbeds.one_file import BROKEN, write_example

COMMANDS = ("list", "show", "check", "run")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["testbeds", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("source"))


def documented(result: Result, kind: type) -> dict:
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    TypeAdapter(kind).validate_python(content, strict=True, extra="forbid")
    return content


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options_and_an_example(command: str) -> None:
    text = run(command, "--help").stdout
    for option in ("--json", "--seed", "--device", "--out", "--from"):
        assert f"  {option} " in text
    assert f"Examples:\n    modelassay testbeds {command}" in text


def test_the_list_names_testbeds_and_methods(source: Path, tmp_path: Path) -> None:
    content = documented(
        run("list", "--from", source, "--json", "--out", tmp_path / "list.json"),
        schemas.TestbedListResult,
    )
    assert content["testbeds"][-1]["name"] == "sums"
    assert json.loads((tmp_path / "list.json").read_text("utf-8")) == content
    assert run("list", "--from", source, "--out", tmp_path / "list.json").exit_code == 1
    assert "Sums of sparse features" in run("list", "--from", source).stdout


def test_a_testbed_is_shown_with_arms_truths_and_known_numbers(source: Path) -> None:
    content = documented(
        run("show", "sums", "--from", source, "--known", "--json"),
        schemas.TestbedShowResult,
    )
    assert [arm["name"] for arm in content["arms"]] == ["near", "far"]
    assert content["known"][0]["reproduced"]
    text = run("show", "SUMS", "--from", source).stdout
    assert "8 features of the activations" in text


def test_the_conformance_suite_passes(source: Path) -> None:
    content = documented(
        run("check", "sums", "--from", source, "--json"), schemas.TestbedCheckResult
    )
    assert content["passed"]
    assert len(content["checks"]) > 5


@pytest.mark.slow
def test_a_league_is_written_and_printed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "league"
    asked = ("run", "--from", source, "--methods", "pca, random", "--seeds", "2", "--out", out)
    content = documented(run(*asked, "--json"), schemas.LeagueResult)
    assert content == json.loads((out / "league.json").read_text("utf-8"))
    assert len(content["rows"]) == 2 * 2 * 2
    assert "<h2" in (out / "league.html").read_text("utf-8")
    again = run(*asked)
    assert again.exit_code == 1
    assert "--resume" in again.output
    resumed = run(*asked, "--resume")
    assert resumed.exit_code == 0
    assert "1 of 1 known numbers reproduced" in resumed.stdout


@pytest.mark.slow
def test_what_fails_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    source = write_example(tmp_path, more=BROKEN)
    result = run(
        "run", "--from", source, "--testbeds", "broken", "--methods", "pca", "--seeds", "1",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "FAILED building, seed 0: ArithmeticError: no construction 0" in result.stdout


def test_near_misses_are_suggested(source: Path) -> None:
    result = run("show", "sum", "--from", source)
    assert result.exit_code == 1
    assert "Did you mean 'sums'" in str(result.output) + str(result.exception)
