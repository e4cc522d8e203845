"""What a report is made of, before anyone decides how it looks.

`build` turns an audit into these parts, `html` and `text` turn the parts into something to read.
A part holds numbers and words, never markup.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from modelassay.audit.parts import LatentDetails
from modelassay.evidence.evidence import Better
from modelassay.report.axes import Axis
from modelassay.report.intervention_parts import EffectMap, PromptStrip, StrengthCurves
from modelassay.report.league_parts import Exhibit, HeatMap, KnownTable, Standings
from modelassay.report.lens_parts import LensMap
from modelassay.report.observation_parts import ObservationList
from modelassay.report.picture_parts import PictureWall


@dataclass(frozen=True, kw_only=True, slots=True)
class Paragraph:
    """Plain prose."""

    text: str
    role: Literal["headline", "body", "note"] = "body"
    title: str = ""
    """Said before the text, in bold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareClass:
    """A class that things are counted in."""

    key: str
    """Names its colour."""
    title: str
    meaning: str = ""
    """One sentence; empty where the title says all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareBar:
    """One stacked bar: a whole, split among classes."""

    name: str
    shares: dict[str, float]
    """Key of the class -> share of the whole, summing to 1."""
    n: int | None
    """Size of the whole; None if it is not known."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Stacked bars over the same classes."""

    title: str
    classes: tuple[ShareClass, ...]
    bars: tuple[ShareBar, ...]
    caption: str
    prominent: bool = False
    """The figure that a report opens with: one large bar and the classes' meanings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A value with its 95 % interval and its null; NaN where it was not measured."""

    value: float
    low: float
    high: float
    null: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One quantity, measured on each of several decompositions."""

    title: str
    unit: str
    better: Better
    definition: str
    null_description: str
    n: int
    estimates: tuple[Estimate | None, ...]
    """In the order of the comparison's columns; None where it was not measured."""
    axis: Axis


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Decompositions side by side, one metric a row, each beside its null."""

    title: str
    columns: tuple[str, ...]
    """Names of the decompositions, the audited one first."""
    metrics: tuple[Metric, ...]
    caption: str
    folded: bool = False
    """Small print: shown only to those who ask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points of a scatter plot."""

    key: str
    """Names its colour and shape."""
    title: str
    x: Float[np.ndarray, " point"]
    y: Float[np.ndarray, " point"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """Two quantities per latent, on logarithmic axes, above null directions."""

    title: str
    x_title: str
    y_title: str
    x: Float[np.ndarray, " latent"]
    y: Float[np.ndarray, " latent"]
    """Coloured by the latents' classes, which the catalogue knows."""
    nulls: tuple[Series, ...]
    ratio: float
    """y / x of the typical null direction, drawn as a line; NaN if there is none."""
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How a quantity is spread over latents, by class, before its null."""

    title: str
    unit: str
    axis: Axis
    counts: dict[str, tuple[int, ...]]
    """Key of the class -> latents per bin; the bins cut the axis into equal parts."""
    null_counts: tuple[int, ...]
    """The same for the null values; empty if there is no null."""
    threshold: float | None
    """The value that a verdict depends on."""
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Histograms:
    """Small multiples."""

    title: str
    classes: tuple[ShareClass, ...]
    histograms: tuple[Histogram, ...]
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceColumn:
    """One evidence over all latents."""

    name: str
    title: str
    unit: str
    better: Better
    null_description: str
    definition: str
    threshold: float | None
    axis: Axis
    value: Float[np.ndarray, " latent"]
    low: Float[np.ndarray, " latent"]
    high: Float[np.ndarray, " latent"]
    null: Float[np.ndarray, " latent"]
    p_value: Float[np.ndarray, " latent"] | None
    q_value: Float[np.ndarray, " latent"] | None
    n: Int[np.ndarray, " latent"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a passport asks of a latent."""

    key: str
    title: str
    asks: str
    says: dict[str, str]
    """Answer ("yes", "no", "unclear") -> what it means, one sentence."""
    evidence: tuple[str, ...]
    """Names of the evidence that decides it, then of what else bears on it. A name also stands
    for its variants: "read" for "read_next_layer", "twin" for "twin:permuted"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """All latents: a table to sort and search, and a panel for each."""

    title: str
    classes: tuple[ShareClass, ...]
    questions: tuple[Question, ...]
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]
    columns: tuple[EvidenceColumn, ...]
    details: LatentDetails
    vocabulary: tuple[str, ...]
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Words and numbers in rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A term, what it means, and small print."""

    term: str
    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Definitions:
    """A list of terms."""

    title: str
    entries: tuple[Definition, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """Text that must keep its layout."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """Stands where another part could not be made, and says why."""

    title: str
    error: str


Part = (
    Paragraph
    | Shares
    | Comparison
    | Scatter
    | Histograms
    | Catalogue
    | Table
    | Definitions
    | Code
    | HeatMap
    | Standings
    | KnownTable
    | Exhibit
    | LensMap
    | EffectMap
    | StrengthCurves
    | PromptStrip
    | PictureWall
    | ObservationList
    | Broken
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Parts under one heading."""

    anchor: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str
    """Where all of it came from, in one line."""
    home: str = ""
    """Address of the report that the page belongs to; empty if it stands alone."""
