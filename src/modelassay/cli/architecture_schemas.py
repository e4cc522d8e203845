"""What the commands of `modelassay architectures` print with `--json`."""

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

from modelassay.cli.testbed_schemas import CheckEntry


class ArchitectureEntry(TypedDict):
    """One recipe."""

    name: str
    summary: str
    references: list[str]


class ArchitectureListResult(TypedDict):
    """What `modelassay architectures list --json` prints."""

    schema_version: int
    architectures: list[ArchitectureEntry]


class ArchitectureVerdict(TypedDict):
    """How one recipe fares in the conformance suite."""

    name: str
    recipe: str
    passed: bool
    checks: list[CheckEntry]


class ArchitectureCheckResult(TypedDict):
    """What `modelassay architectures check --json` prints."""

    schema_version: int
    passed: bool
    architectures: list[ArchitectureVerdict]
