"""What `modelassay atlas` prints with `--json`."""

from typing import Any

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


class AtlasClassEntry(TypedDict):
    """A class that a cell raises."""

    name: str
    effect: float
    """Mean first-order effect on its logit, less the mean over classes."""


class AtlasCellEntry(TypedDict):
    """A cell with samples enough."""

    row: int
    column: int
    samples: int
    objective: float
    """The target on the cell's picture as it is."""
    classes: list[AtlasClassEntry]


class AtlasResult(TypedDict):
    """What `modelassay atlas --json` prints."""

    schema_version: int
    model: str
    layer: str
    grid: int
    layout: str
    samples: int
    images: int
    cells: list[AtlasCellEntry]
    remark: str
    """Why no classes are named; empty otherwise."""
    settings: dict[str, Any]
    seed: int
    out: str
