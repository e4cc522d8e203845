"""An architecture written and registered as a user would, in one file."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import RECIPES
from modelassay.decompositions.recipes import TopK
from modelassay.decompositions.sparsifier import SPARSIFIERS
from modelassay.decompositions.sparsifiers import TopKActivation
from modelassay.fitting.architectures import register_architecture
from modelassay.fitting.conformance import check_architecture
from modelassay.fitting.training import training_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "own_architecture.py"


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


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE), run_name="own_architecture")


def test_the_example_conforms(example: dict[str, Any]):
    report = check_architecture(example["RelativeTopK"](width=64, k=4))
    assert report.passed, str(report)
    assert len(report.checks) == 21


def test_the_example_as_a_program_says_that_it_conforms(capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shown = capsys.readouterr().out
    assert shown.startswith("RelativeTopK(width=64")
    assert "ok   what is saved is read back (same codes, same recipe)" in shown
    assert "FAIL" not in shown


def test_the_example_is_on_its_page(example: dict[str, Any]):
    page = (ROOT / "docs" / "architectures.md").read_text("utf-8")
    assert f"```python\n{EXAMPLE.read_text('utf-8')}```\n" in page


def test_recipe_sparsifier_and_training_are_known_after_one_call(example: dict[str, Any]):
    recipe = example["RelativeTopK"](width=32, k=2)
    assert RECIPES["RelativeTopK"] is example["RelativeTopK"]
    assert SPARSIFIERS["relative_topk"] is example["RelativeTopKActivation"]
    names = [type(term).__name__ for term in training_of(recipe).objectives]
    assert names == ["Reconstruction", "AuxK", "Coherence"]


def test_a_name_that_is_taken_is_refused():
    class TakesTopK(TopKActivation):  # pyright: ignore[reportGeneralTypeIssues]
        pass

    with pytest.raises(ValueRangeError, match="kind must be its own; got 'topk'"):
        register_architecture(TopK, training=training_of, sparsifiers=[TakesTopK])
    impostor = type("TopK", (TopK,), {"__module__": "elsewhere"})
    with pytest.raises(ValueRangeError, match="name must be its own; got 'TopK'"):
        register_architecture(impostor, training=training_of)
    assert RECIPES["TopK"] is TopK
