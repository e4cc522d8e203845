"""What the commands of `modelassay lens` print with `--json`."""

from typing import Literal

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

from modelassay.cli.schemas import ProvenanceEntry


class LensTable(TypedDict):
    """One lens over a text: rows are layers, columns tokens; nats."""

    name: str
    top_tokens: list[list[str]]
    """Text of the likeliest next token."""
    probabilities: list[list[float]]
    """Of that token."""
    entropy: list[list[float]]
    kl: list[list[float]]
    """From the model's own prediction."""
    cross_entropy: list[list[float | None]]
    """Of the token that came next; null at the last one, which has none."""
    rank: list[list[int | None]]
    """Tokens that the lens holds likelier than that one."""


class LensShowResult(TypedDict):
    """What `modelassay lens show --json` prints."""

    schema_version: int
    out: str
    subject: str
    tokens: list[str]
    layers: list[str]
    """"embedding", then the block whose output is read."""
    lenses: list[LensTable]


class LensLayer(TypedDict):
    """One layer of a fitted lens on held-out documents; KL from the final prediction in nats."""

    layer: str
    kl_logit: float
    """Of the logit lens."""
    kl: float
    gain: float
    """Difference of the two: below 0 the fitted lens is better."""
    gain_low: float | None
    """Lower end of its 95 % interval (bootstrap over documents)."""
    gain_high: float | None


class LensTrainResult(TypedDict):
    """What `modelassay lens train --json` prints."""

    schema_version: int
    lens: str
    """The file; `modelassay lens show --lens` takes it."""
    picture: str
    subject: str
    kind: Literal["tuned", "jacobian"]
    heldout_tokens: int
    heldout_documents: int
    layers: list[LensLayer]
    provenance: ProvenanceEntry


class LensPart(TypedDict):
    """What one part of a model adds to a logit."""

    name: str
    logit: float


class LensAttributionResult(TypedDict):
    """What `modelassay lens attribute --json` prints."""

    schema_version: int
    subject: str
    target: str
    contrast: str | None
    """None for the mean over the vocabulary."""
    logit: float
    error: float
    """How far the parts' sum is from it."""
    parts: list[LensPart]


class HeadEntry(TypedDict):
    """One head on one kind."""

    kind: Literal["previous_token", "induction", "duplicate_token"]
    measured_on: str
    layer: int
    head: int
    score: float
    """Mean attention to the kind's positions."""
    null: float
    """The largest such score with the positions shuffled."""


class LensHeadsResult(TypedDict):
    """What `modelassay lens heads --json` prints."""

    schema_version: int
    subject: str
    threshold: float
    found: list[HeadEntry]
    best: list[HeadEntry]
    """The best head of each kind, whether it is found or not."""
    copying_nats: float | None
    """Loss on random tokens minus loss on their second copy, per token."""
