"""What each command prints with `--json`, and what `audit.json` holds.

Every object carries `schema_version`. It is raised when a key is removed, renamed or changes its
meaning; a new key does not raise it. Quantities that were not measured are `null`.
"""

from typing import Any, Literal

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


class TestbedEntry(TypedDict):
    """A testbed before it is built."""

    name: str
    """As it is asked for: T4a, or T3.4x4 where an example has variants."""
    title: str
    claim: str
    references: list[str]
    """Keys for `modelassay cite`."""
    slow: bool
    """Not part of "all"."""


class MethodEntry(TypedDict):
    """A method that a league can compare."""

    name: str
    title: str
    sees: Literal["activations", "model"]
    """Whether it looks at the audited activations alone, or past them into the model."""


class TestbedListResult(TypedDict):
    """What `modelassay testbeds list --json` prints."""

    schema_version: int
    testbeds: list[TestbedEntry]
    methods: list[MethodEntry]


class ArmEntry(TypedDict):
    """One arm of a testbed."""

    name: str
    data: int
    """Number of inputs."""
    interventional: int
    """Number of inputs on which the data's own dependencies are broken."""
    model_features: list[str]
    activation_features: list[str]
    model_null: float
    """Match of random dictionaries of the testbed's size with the features of the model."""
    activation_null: float


class KnownEntry(TypedDict):
    """A number that was known before, and its reproduction."""

    name: str
    expected: float
    tolerance: float
    measured: float | None
    source: str
    reproduced: bool


class TestbedShowResult(TypedDict):
    """What `modelassay testbeds show --json` prints."""

    schema_version: int
    name: str
    title: str
    claim: str
    references: list[str]
    seed: int
    d_model: int
    width: int
    """Latents of the dictionaries that it asks for."""
    k: int
    tokens: int
    """Inputs seen in training, repeats counted."""
    similarity: Literal["values", "directions"]
    arms: list[ArmEntry]
    known: list[KnownEntry] | None
    """None unless asked for with --known."""


class CheckEntry(TypedDict):
    """One demand on a testbed or an architecture."""

    name: str
    passed: bool
    found: str


class TestbedCheckResult(TypedDict):
    """What `modelassay testbeds check --json` prints."""

    schema_version: int
    name: str
    passed: bool
    checks: list[CheckEntry]


class LeagueTestbed(TypedDict):
    """A testbed that takes part in a league."""

    name: str
    title: str
    claim: str
    references: list[str]
    arms: list[str]
    """Empty if it could not be run."""


class LeagueRow(TypedDict):
    """One decomposition in one arm."""

    testbed: str
    arm: str
    method: str
    seed: int
    """Of the construction."""
    fit: int
    """Which fit to that construction, from 0."""
    v: float | None
    """`match_model / (match_model + match_activations)`: 1 is the model's truth, 0 the
    activations'; `null` where nothing was found."""
    match_model: float | None
    """Share of the model's features that was found, beyond chance."""
    match_activations: float | None
    found: Literal["model", "activations", "both", "neither", "partly"]
    s_graph: float | None
    """1: one latent per mechanism."""
    pad: float | None
    """1 if it is nearest to this arm's model truth, 0 if to another's, 1/n if n tie."""
    own: dict[str, float | None]
    """What else the testbed measures."""
    seconds: float
    """Its share of the time that fitting and scoring took."""


class LeagueMean(TypedDict):
    """A mean over constructions."""

    value: float | None
    low: float | None
    """Lower end of the 95 % interval (Student's t over constructions); `null` with one."""
    high: float | None
    between_fits: float | None
    """Standard deviation between fits of one construction; `null` with one fit."""
    n: int
    """Constructions on which it is defined."""


class LeagueStanding(TypedDict):
    """One method on one testbed: means over arms, fits and constructions."""

    testbed: str
    method: str
    v: LeagueMean
    match_model: LeagueMean
    match_activations: LeagueMean
    s_graph: LeagueMean
    pad_beyond_chance: LeagueMean
    """PAD~: 0 is chance, 1 is always nearest to the own arm."""
    found: Literal["model", "activations", "both", "neither", "partly"]
    own: dict[str, LeagueMean]
    seconds: float
    """For one construction, all arms."""


class LeagueFailure(TypedDict):
    """What could not be run."""

    testbed: str
    seed: int
    what: str
    """`building`, the name of a method, `known numbers` or `pictures`."""
    reason: str


class LeagueResult(TypedDict):
    """`league.json`, and what `modelassay testbeds run --json` prints."""

    schema_version: int
    testbeds: list[LeagueTestbed]
    methods: list[MethodEntry]
    seeds: list[int]
    fits: int
    rows: list[LeagueRow]
    standings: list[LeagueStanding]
    known: dict[str, list[KnownEntry]]
    """Testbed -> its known numbers, measured on the first construction."""
    failures: list[LeagueFailure]
    provenance: ProvenanceEntry


class PlanDictionary(TypedDict):
    """A dictionary that a plan counts."""

    name: str
    width: int
    active: float | None
    """Mean number of active latents a token; `null` where the training step is dense."""
    trained_parameters: int


class PlanHardware(TypedDict):
    """One device, as a plan counts it."""

    name: str
    origin: Literal["measured", "assumed"]
    """Assumed rates are a share of the data sheet's peaks."""
    product_flops: dict[str, float]
    """Precision -> FLOP/s of a dense product."""
    memory_bandwidth: float
    """Bytes/s, as are all rates but those of products."""
    memory_bytes: int
    disk_write: float
    disk_read: float
    disk_free_bytes: int | None
    link_bandwidth: float | None
    """To another device; `null` if it is not known."""
    fixed_seconds: float
    """Of a dictionary's step, however small it is."""
    step_units: float | None
    """A real training step's time over that of its encoder product; `null` if not measured."""
    step_factor: float
    """A real training step's time over what the cost model says of it; multiplies the forecast."""
    forward_factor: float
    """The same for a transformer block."""


class PlanTerm(TypedDict):
    """One part of a run's time."""

    name: str
    kind: Literal["compute", "bandwidth", "communication", "disk", "fixed"]
    """What bounds it."""
    hours: float


class PlanStorage(TypedDict):
    """Activations on disk against a model that runs anew in every pass."""

    activation_bytes: int
    checkpoint_bytes: int
    stored_hours: float
    streamed_hours: float
    passes_to_pay: int | None
    """Passes, or runs, from which on a store is the cheaper one; `null` if it never is."""


class PlanResult(TypedDict):
    """What `modelassay plan --json` prints."""

    schema_version: int
    subject: str
    site: str
    dictionaries: list[PlanDictionary]
    tokens: int
    batch_tokens: int
    context_tokens: int
    steps: int
    passes: int
    dtype: str
    precision: str
    optimizer: str
    initial_k: int | None
    """Active latents a token at first, where they fall to the final number."""
    hardware: PlanHardware
    flops: dict[str, float]
    """Of the whole run: model, encoder, rest and total."""
    memory: dict[str, int]
    """Bytes on each device: weights, gradients, moments, silence, workspace (exact); batch and
    model (estimated); total."""
    storage: PlanStorage
    streamed: bool
    """Whether the plan lets the model run anew in every pass; otherwise activations are stored."""
    communication: dict[str, float]
    """Bytes that each device sends in a step: candidates, reconstruction, gradients and total."""
    terms: list[PlanTerm]
    hours: float
    bound: Literal["compute", "bandwidth", "communication", "disk", "fixed"]
    """What most of the time is spent on."""
    fits: bool
    """Whether any number of devices holds the run."""
    shards: int
    """Devices that a dictionary's latents are spread over."""
    replicas: int
    """Groups of such devices, each with its share of the tokens."""
    devices: int
    warnings: list[str]


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


class ProbeMeasured(TypedDict):
    """A value with its 95 % interval by groups."""

    value: float | None
    low: float | None
    """`null` with fewer than five groups."""
    high: float | None


class ProbeControl(TypedDict):
    """What knows less, on the same test items."""

    name: str
    meaning: str
    accuracy: ProbeMeasured
    lead: ProbeMeasured
    """Accuracy of the probe less that of the control."""


class ProbeEffect(TypedDict):
    """What a change along the probe's direction does to the preferred continuation."""

    name: Literal["push", "ablate", "erase"]
    share: ProbeMeasured
    """Of the separation: 1 moves the preference as far as the classes lie apart, or takes all of
    the difference away."""
    null_largest: float
    """The largest effect of a random change of equal size."""
    p_value: float


class ProbeSite(TypedDict):
    """A probe at one site, with its controls."""

    site: str
    encoded: Literal["yes", "not beyond controls", "no"]
    used: Literal["yes", "partly", "no", "no behaviour", "not tested"]
    accuracy: ProbeMeasured
    auroc: ProbeMeasured
    f1: ProbeMeasured
    average_precision: ProbeMeasured
    ece: ProbeMeasured
    """Expected calibration error."""
    controls: list[ProbeControl]
    selectivity: ProbeMeasured | None
    compression: dict[str, float]
    """Of the online codes of the labels, of a control task and of the null twin."""
    auroc_after_erasure: ProbeMeasured | None
    separation: ProbeMeasured | None
    """Nats by which the model's preferred continuation tells the classes apart."""
    effects: list[ProbeEffect]


class ProbeResult(TypedDict):
    """What `modelassay probe --json` prints, and `probes.json`."""

    schema_version: int
    directory: str
    subject: str
    concept: str
    method: str
    classes: list[str]
    balance: list[float]
    """Share of each class among the test items."""
    train_items: int
    test_items: int
    train_groups: int
    test_groups: int
    sites: list[ProbeSite]
    missing: list[str]
    """Controls that could not be run, with reasons."""
    provenance: ProvenanceEntry
