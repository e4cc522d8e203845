"""What `modelassay history` prints with `--json`."""

from typing import Literal

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

from modelassay.cli.probe_schemas import ProbeMeasured
from modelassay.cli.schemas import ProvenanceEntry


class HistoryConcept(TypedDict):
    """A concept at the last step, at the site that the training documents chose; and all cells."""

    name: str
    description: str
    graded: bool
    """Scored by R^2, else by 2 AUROC - 1."""
    train_items: int
    test_items: int
    test_groups: int
    finding: Literal["learnt", "not beyond the null twin", "not beyond the tokens", "not encoded"]
    since: int | None
    """From this step on the lead is above 0 at every checkpoint."""
    site: str
    score: ProbeMeasured
    lead: ProbeMeasured
    """Over the best of token, bag of tokens, null twin and chance."""
    over_token: ProbeMeasured
    over_bag: ProbeMeasured
    over_null: ProbeMeasured
    selectivity: ProbeMeasured
    scores: list[list[float | None]]
    """By site and step."""
    leads: list[list[float | None]]
    leads_low: list[list[float | None]]
    """Lower ends of the 95 % intervals."""
    leads_high: list[list[float | None]]


class HistoryResult(TypedDict):
    """What `modelassay history --json` prints, and `history.json`."""

    schema_version: int
    directory: str
    subject: str
    checkpoints: list[str]
    steps: list[int]
    sites: list[str]
    null: str
    """What the null twin is."""
    concepts: list[HistoryConcept]
    missing: list[str]
    """Concepts that could not be probed, with reasons."""
    provenance: ProvenanceEntry
