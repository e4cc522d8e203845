"""What `modelassay plan` prints with `--json`."""

from typing import Literal

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


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
