"""What the commands of `modelassay testbeds` print with `--json`."""

from typing import Literal

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one

from modelassay.cli.schemas import ProvenanceEntry


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
