"""`modelassay architectures`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelassay.cli.main import app
from modelassay.decompositions.dictionary import RECIPES
from modelassay.decompositions.sparsifier import SPARSIFIERS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_architecture.py"


@pytest.fixture(autouse=True)
def _only_here() -> Iterator[None]:
    """Others' architectures are not known here, nor those of a test elsewhere."""
    before = [(known, dict(known)) for known in (RECIPES, SPARSIFIERS)]
    for known, kept in before:
        for name in [n for n, kind in kept.items() if not kind.__module__.startswith("modelassay")]:
            del known[name]
    yield
    for known, kept in before:
        known.clear()
        known.update(kept)


def run(*arguments: str):
    return CliRunner().invoke(app, ["architectures", *arguments])


def test_every_recipe_is_listed_with_its_papers():
    result = json.loads(run("list", "--json").stdout)
    assert {entry["name"] for entry in result["architectures"]} == set(RECIPES)
    gated = next(e for e in result["architectures"] if e["name"] == "Gated")
    assert gated["references"] == ["rajamanoharan2024gated"]
    assert gated["summary"].startswith("Let a gate decide which latents are active")
    assert "rajamanoharan2024gated" in run("list").stdout


def test_a_file_of_ones_own_is_checked(tmp_path: Path):
    found = tmp_path / "found.json"
    done = run("check", str(EXAMPLE), "--out", str(found))
    assert done.exit_code == 0, done.output
    assert "RelativeTopK(width=64" in done.stdout
    assert "passed  every term of the loss teaches (3 terms)" in done.stdout
    (entry,) = json.loads(found.read_text())["architectures"]
    assert entry["name"] == "RelativeTopK"
    assert entry["passed"]


def test_an_unsound_architecture_fails(tmp_path: Path):
    source = EXAMPLE.read_text("utf-8")
    assert source.count("self.coefficient * off_diagonal") == 1
    unsound = tmp_path / "unsound.py"
    unsound.write_text(
        source.replace("self.coefficient * off_diagonal", "0.1 * off_diagonal.detach()")
    )
    done = run("check", str(unsound), "--json")
    assert done.exit_code == 1
    (entry,) = json.loads(done.stdout)["architectures"]
    failed = [check for check in entry["checks"] if not check["passed"]]
    assert [check["name"] for check in failed] == ["every term of the loss teaches"]
    assert failed[0]["found"] == "silent: Coherence"


def test_what_is_no_architecture_is_an_error_in_one_line(tmp_path: Path):
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    done = run("check", str(empty))
    assert done.exit_code == 1
    assert "must register a recipe; got none from 'empty.py'" in done.output
    assert "TopK" in run("check", "TopKK").output
    assert run("check", str(tmp_path / "absent.py")).exit_code == 1
