"""What the commands of `modelassay superposition` print with `--json`."""

from typing import Any

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


class ExperimentEntry(TypedDict):
    """One experiment that can be run."""

    name: str
    asks: str


class SuperpositionListResult(TypedDict):
    """What `modelassay superposition list --json` prints."""

    schema_version: int
    experiments: list[ExperimentEntry]


class StudyEntry(TypedDict):
    """What one experiment found."""

    name: str
    title: str
    rows: list[dict[str, float | str]]
    """One a condition; losses are summed over features."""
    settings: dict[str, Any]
    folder: str
    """Where `study.safetensors` and `study.json` are."""


class SuperpositionRunResult(TypedDict):
    """What `modelassay superposition run --json` prints."""

    schema_version: int
    size: str
    seed: int
    page: str
    studies: list[StudyEntry]
