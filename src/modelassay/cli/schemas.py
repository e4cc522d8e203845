"""What each command prints with `--json`, and what `audit.json` holds.

Every object carries `schema_version`. It is raised when a key is removed, renamed or changes its
meaning; a new key does not raise it. Quantities that were not measured are `null`.
"""

from typing import Literal

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

SCHEMA_VERSION = 1

Shares = dict[str, float]
"""Verdict (model, activations, undetermined, dead) -> share of latents; they sum to 1."""


class Meaning(TypedDict):
    """What a quantity is."""

    name: str
    title: str
    """The quantity in plain words."""
    scope: Literal["latent", "decomposition"]
    null_description: str
    """What the null is: the same measurement where there is nothing to find."""
    unit: str
    better: Literal["higher", "lower", "neither"]
    definition: str
    """The formula, in one paragraph."""
    references: list[str]
    """Keys for `modelassay cite`."""


class Quantity(Meaning):
    """A measured quantity of a whole decomposition."""

    value: float | None
    low: float | None
    """Lower end of the 95 % interval (bootstrap over documents)."""
    high: float | None
    null: float | None
    """Typical value under the null, in the same unit."""
    n: int
    """Sample size."""
    p_value: float | None
    q_value: float | None
    """The p-value after Benjamini and Hochberg's correction."""


class Reconstruction(TypedDict):
    """How well one decomposition keeps what the activations hold."""

    name: str
    evidence: dict[str, Quantity]


class Latents(TypedDict):
    """Columns over all latents, in their order."""

    verdict: list[str]
    reason: list[str]
    """One plain sentence each."""
    answers: dict[str, list[str]]
    """Question (written, read, learned, stable) -> yes, no or unclear."""


class ConceptNames(TypedDict):
    """The concepts that the library could label."""

    names: list[str]
    descriptions: list[str]


class ThresholdEntry(TypedDict):
    """A number that verdicts depend on."""

    name: str
    value: float
    reason: str


class ProvenanceEntry(TypedDict):
    """Everything that one needs to make the result again."""

    versions: dict[str, str]
    seed: int
    device: str
    created: str
    """UTC, ISO 8601."""
    facts: dict[str, str | int | float | bool | None]
    """What the step adds: hashes of model, corpus and dictionary, tokens, settings."""


class AuditResult(TypedDict):
    """`audit.json`, and what `modelassay audit --json` prints."""

    schema_version: int
    subject: str
    site: str
    dictionary: str
    width: int
    """Number of latents."""
    d_model: int
    verdicts: Shares
    reconstruction: list[Reconstruction]
    """The audited decomposition first, then the baselines."""
    baselines: dict[str, Shares]
    latents: Latents
    evidence: dict[str, Meaning]
    """What each latent-level quantity means; its numbers are in `audit.safetensors`, as
    `evidence.<name>.value`, `.low`, `.high`, `.null`, `.n` and, where tested, `.p_value` and
    `.q_value`, each with one entry a latent."""
    concepts: ConceptNames | None
    """None for a corpus that the concept library cannot label."""
    documents: list[str]
    """Names of the documents that examples are shown from."""
    neighbour_null: float | None
    null_directions: list[str]
    """Kind of each null direction in the variance figure: random or pca."""
    vocabulary: list[str]
    """Token strings by id. They come from the corpus: escape them before showing."""
    thresholds: list[ThresholdEntry]
    provenance: ProvenanceEntry


class HarvestResult(TypedDict):
    """What `modelassay harvest --json` prints."""

    schema_version: int
    directory: str
    subject: str
    fingerprint: str
    """Hash of the model's weights."""
    sites: list[str]
    tokens: int
    contexts: int
    provenance: ProvenanceEntry


class FitResult(TypedDict):
    """What `modelassay fit --json` prints."""

    schema_version: int
    directory: str
    """A dictionary in the project's own format; `modelassay audit --dictionary` takes it."""
    name: str
    site: str
    width: int
    evidence: dict[str, Quantity]
    """How well it reconstructs held-out activations."""
    provenance: ProvenanceEntry


class FitsResult(TypedDict):
    """What `modelassay fit --json` prints where it fits several dictionaries."""

    schema_version: int
    directory: str
    """Holds a folder for each dictionary, and `log.csv` of all."""
    dictionaries: list[FitResult]


class ReportResult(TypedDict):
    """What `modelassay report --json` prints."""

    schema_version: int
    report: str
    """Path of the page."""
    bytes: int


class ReferenceEntry(TypedDict):
    """One paper."""

    key: str
    title: str
    bibtex: str


class CiteResult(TypedDict):
    """What `modelassay cite --json` prints."""

    schema_version: int
    references: list[ReferenceEntry]


class DeviceState(TypedDict):
    """The device that was asked for, and what else there is."""

    name: str
    state: str
    """`intact`, or what is wrong with it."""
    accelerators: int
    threads: int


class DoctorResult(TypedDict):
    """What `modelassay doctor --json` prints."""

    schema_version: int
    healthy: bool
    versions: dict[str, str]
    device: DeviceState
    free_disk_gib: float
    bundled_model: str
    """`intact`, or what is wrong with it."""
