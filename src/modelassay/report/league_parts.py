"""What a league's page is made of, beside the parts that every page may have."""

from dataclasses import dataclass

from modelassay.testbeds.picture import Drawing
from modelassay.testbeds.standing import Mean


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatCell:
    """One method on one testbed, as a colour."""

    text: str
    v: float
    """0 is the activations' colour, 1 the model's."""
    strength: float
    """0 is no colour, 1 the full one: the larger of the two matches."""
    tip: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """Methods in rows, testbeds in columns."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    """Name, and the anchor that it leads to."""
    cells: tuple[tuple[HeatCell | None, ...], ...]
    """None where the method failed."""
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StandingRow:
    """One method on one testbed, in numbers."""

    method: str
    sees_model: bool
    found: str
    v: Mean
    match_model: Mean
    match_activations: Mean
    s_graph: Mean
    pad: Mean
    """PAD~."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StandingGroup:
    """All methods on one testbed."""

    name: str
    title: str
    anchor: str
    arms: tuple[str, ...]
    rows: tuple[StandingRow, ...]
    failures: tuple[str, ...]
    """What could not be run, with reasons."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standings:
    """The league table."""

    title: str
    groups: tuple[StandingGroup, ...]
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownRow:
    """A known number beside its reproduction."""

    testbed: str
    name: str
    expected: float
    tolerance: float
    measured: float
    source: str
    reproduced: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownTable:
    """What was known before, and whether it came out."""

    title: str
    rows: tuple[KnownRow, ...]
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnScores:
    """What a testbed measures that others do not: methods in rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Mean | None, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhibit:
    """One testbed: its claim, its pictures, and what it alone measures."""

    anchor: str
    title: str
    claim: str
    note: str
    drawings: tuple[Drawing, ...]
    own: OwnScores
    arms: tuple[tuple[str, ...], ...]
    """One row per arm and method: the scores before they are averaged over the arms."""
