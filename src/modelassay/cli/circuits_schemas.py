"""What the commands of `modelassay circuits` print with `--json`."""

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


class ConnectionEntry(TypedDict):
    """One input channel of a unit."""

    channel: int
    strength: float
    """Norm of its kernel, times its root mean square activity where images were given."""
    total: float
    """Sum of its weights: above 0 it excites."""
    share: float
    """Of the squared strengths of all inputs."""


class UnitEntry(TypedDict):
    """A unit and its inputs."""

    channel: int
    inputs: list[ConnectionEntry]
    """The strongest first."""
    correlation: float | None
    """Of predicted with real changes between images; `null` without images or for a dead unit."""
    other: float | None
    """The same with the weights of another unit."""


class CircuitWeightsResult(TypedDict):
    """What `modelassay circuits weights --json` prints."""

    schema_version: int
    model: str
    source: str
    target: str
    layers: int
    """Convolutions between them; 1 if they are joined directly."""
    kernel: list[int]
    """Rows and columns."""
    units: list[UnitEntry]
    out: str


class FamilyEntry(TypedDict):
    """What was found of one family."""

    name: str
    members: list[int]
    """Channels that the evidence supports, the strongest first."""
    index: list[float | None]
    """Of every channel; `null` for those that hardly respond."""
    preferred: list[float | None]
    """Radians."""
    q_value: list[float]
    null_share: float
    """Share of the twins' channels with an index that members need."""


class CircuitTuningResult(TypedDict):
    """What `modelassay circuits tuning --json` prints."""

    schema_version: int
    model: str
    layer: str
    size: int
    twins: int
    seed: int
    families: list[FamilyEntry]
    out: str


class CircuitUniversalityResult(TypedDict):
    """What `modelassay circuits universality --json` prints."""

    schema_version: int
    models: list[str]
    layers: list[str]
    images: int
    best: list[float | None]
    partner: list[int]
    """-1 for a channel that never varies."""
    one_to_one: list[float | None]
    assigned: list[int]
    null_permuted: list[float | None]
    null_rotated: list[float | None]
    shared: float
    cka: float
    svcca: float
    seed: int
    out: str
