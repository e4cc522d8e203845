"""What `modelassay probe` prints with `--json`."""

from typing import Literal

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

from modelassay.cli.schemas import ProvenanceEntry


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
