"""What `modelassay visualize` prints with `--json`."""

from typing import Any

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


class ImageExampleEntry(TypedDict):
    """A place in a natural image."""

    group: str
    """top, a band of ranks such as `0–25 %`, random, or silent."""
    image: str
    """The file within the folder."""
    position: list[int]
    """Row and column of the layer."""
    box: list[int]
    """Pixels that the unit sees there: top, left, bottom, right (the last two exclusive)."""
    value: float


class VisualizeEntry(TypedDict):
    """One optimised image."""

    target: str
    objective: float
    """The target on the clean final image."""
    natural: float | None
    """The most of it on any natural image; None if there were none to compare with."""
    dead: bool
    """Whether the target was exactly 0 at every step: the image shows nothing then."""
    examples: list[ImageExampleEntry]
    """Of natural images, with the first facet of each channel; empty without a folder of them."""


class VisualizeResult(TypedDict):
    """What `modelassay visualize --json` prints."""

    schema_version: int
    model: str
    layer: str
    images: list[VisualizeEntry]
    controls: dict[str, list[float]]
    """Targets on the clean control images: untrained and random_direction."""
    redirected: int
    """Rectifiers with redirected gradients in the first steps."""
    settings: dict[str, Any]
    seed: int
    out: str
