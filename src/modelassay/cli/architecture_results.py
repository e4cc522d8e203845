"""What the commands about architectures find, as JSON and as text."""

from dataclasses import fields
from pathlib import Path
from runpy import run_path
from typing import Any

from modelassay.cli.architecture_schemas import (
    ArchitectureCheckResult,
    ArchitectureListResult,
    ArchitectureVerdict,
)
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.decompositions.recipes import RECIPES, Recipe
from modelassay.fitting.conformance import check_architecture


def listed() -> ArchitectureListResult:
    """All recipes that are registered."""
    return {
        "schema_version": SCHEMA_VERSION,
        "architectures": [
            {
                "name": name,
                "summary": (RECIPES[name].__doc__ or "").strip().partition("\n")[0],
                "references": list(RECIPES[name].references),
            }
            for name in sorted(RECIPES)
        ],
    }


def as_text(result: ArchitectureListResult) -> str:
    """A line for each recipe, and one for its papers."""
    return "\n".join(
        f"{entry['name']:<14}{entry['summary']}\n{'':<14}{', '.join(entry['references'])}"
        for entry in result["architectures"]
    )


def checked(what: str, *, width: int, k: int, seed: int) -> ArchitectureCheckResult:
    """Check a recipe of the library, or all that a file registers.

    Raises:
        UnknownNameError: if there is no such recipe.
        ValueRangeError: if the file registers none.
        FileNotFoundError: if there is no such file.
    """
    kinds = _registered_by(Path(what)) if what.endswith(".py") else [_find(what)]
    entries: list[ArchitectureVerdict] = []
    for kind in kinds:
        report = check_architecture(_sized(kind, width=width, k=k), seed=seed)
        entries.append(
            {
                "name": kind.__name__,
                "recipe": str(report.recipe),
                "passed": report.passed,
                "checks": [
                    {"name": check.name, "passed": check.passed, "found": check.found}
                    for check in report.checks
                ],
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": all(entry["passed"] for entry in entries),
        "architectures": entries,
    }


def verdicts(result: ArchitectureCheckResult) -> str:
    """A line for each check."""
    lines: list[str] = []
    for entry in result["architectures"]:
        lines.append(entry["recipe"])
        lines += [
            f"  {'passed' if check['passed'] else 'FAILED'}  {check['name']} ({check['found']})"
            for check in entry["checks"]
        ]
    return "\n".join(lines)


def _find(name: str) -> type[Recipe]:
    by_name = {known.lower(): kind for known, kind in RECIPES.items()}
    if name.lower() not in by_name:
        raise UnknownNameError("A recipe", name, RECIPES)
    return by_name[name.lower()]


def _registered_by(path: Path) -> list[type[Recipe]]:
    """The recipes that are known after a file has been run and were not before."""
    path.open("rb").close()  # its error names the file
    before = set(RECIPES)
    run_path(str(path), run_name=f"modelassay_architecture_of_{path.stem}")
    found = [kind for name, kind in RECIPES.items() if name not in before]
    if not found:
        raise ValueRangeError(
            f"A file of architectures must register a recipe; got none from {path.name!r}. "
            "End it with register_architecture(MyRecipe, training=my_training)."
        )
    return found


def _sized(kind: type[Recipe], *, width: int, k: int) -> Recipe:
    """The recipe at a small size, with its other defaults."""
    sizes: dict[str, Any] = {"width": width, "k": k, "target_l0": float(k)}
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in sizes.items() if name in known})
