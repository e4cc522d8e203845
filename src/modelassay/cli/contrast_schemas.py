"""What `modelassay examples` and `modelassay contrast` print with `--json`."""

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

from modelassay.cli.schemas import ProvenanceEntry


class UnitEntry(TypedDict):
    """One unit over the tokens read."""

    name: str
    rate: float
    """Share of the tokens on which it is active."""
    largest: float | None
    median: float | None
    """Of its active values."""
    strongest_tokens: list[str]
    """At the strongest examples."""
    examples: int


class PairEntry(TypedDict):
    """Two units that are active together."""

    units: list[str]
    phi: float
    """Correlation of being active."""


class ExamplesResult(TypedDict):
    """What `modelassay examples --json` prints."""

    schema_version: int
    directory: str
    subject: str
    site: str
    tokens: int
    quantile_error: float
    """Relative, at most."""
    units: list[UnitEntry]
    pairs: list[PairEntry] | None
    """The twenty most correlated; null if not asked."""
    provenance: ProvenanceEntry


class Share(TypedDict):
    """A share with its 95 % interval and what chance gives."""

    value: float | None
    low: float | None
    high: float | None
    null: float


class DiscoveryEntry(TypedDict):
    """One unit that tells A from B; effect sizes on the replication half."""

    unit: str
    auroc: float
    low: float
    high: float
    difference: float
    """Standardised mean difference."""
    rate_difference: float
    q_value: float
    replication_p: float
    replicated: bool


class ContrastEntry(TypedDict):
    """A against B."""

    a: str
    b: str
    paired: bool
    discovery_items: list[int]
    """Of A and of B."""
    replication_items: list[int]
    fdr: float
    units: int
    discoveries: list[DiscoveryEntry]
    replicated: Share
    same_sign: Share


class ChangedEntry(TypedDict):
    """One unit that changed between two models."""

    unit: str
    kind: str
    base_rate: float
    tuned_rate: float
    change: float
    low: float
    high: float
    effect: float
    q_value: float


class ChangeEntry(TypedDict):
    """A base model against its tuned twin."""

    tuned: str
    documents: int
    kinds: dict[str, int]
    changed: list[ChangedEntry]


class ContrastResult(TypedDict):
    """What `modelassay contrast --json` prints."""

    schema_version: int
    directory: str
    subject: str
    site: str
    contrast: ContrastEntry | None
    """Of the model's responses; with --tuned, of their changes."""
    change: ChangeEntry | None
    """With --tuned."""
    provenance: ProvenanceEntry
