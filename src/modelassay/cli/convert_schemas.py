"""What `modelassay convert` prints with `--json`."""

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


class ConvertResult(TypedDict):
    """What `modelassay convert --json` prints."""

    schema_version: int
    name: str
    """The dictionary's, for readers."""
    format: str
    """The one that was written."""
    folder: str
    """Where it was written."""
    width: int
    """Number of latents."""
    d_in: int
    d_out: int
    reads: str | None
    """Site of the activations; null if the format does not say it."""
    writes: str | None
    """Site that the reconstructions stand for."""
    difference: float
    """Largest difference of the reconstructions after reading back, over their largest entry."""


class ConvertCrossLayerResult(TypedDict):
    """What `modelassay convert --cross-layer --json` prints."""

    schema_version: int
    name: str
    """The transcoder's, for readers."""
    format: str
    """The one that was written."""
    folder: str
    """Where it was written."""
    widths: list[int]
    """Number of latents of every layer."""
    d_in: int
    d_out: int
    reads: list[str]
    """Site of every layer's activations."""
    writes: list[str]
    """Site that every layer's reconstructions stand for."""
    difference: float
    """Largest difference of the reconstructions after reading back, over their largest entry."""


class ConvertAllResult(TypedDict):
    """What `modelassay convert --all --json` prints."""

    schema_version: int
    converted: list[ConvertResult]


class ConvertListResult(TypedDict):
    """What `modelassay convert --list --json` prints."""

    schema_version: int
    names: list[str]
    """Of all dictionaries that are there, as `convert` takes them."""
