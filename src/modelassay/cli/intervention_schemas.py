"""What `modelassay patch --json` and `modelassay steer --json` print."""

from typing_extensions import TypedDict  # pydantic, which checks these in the tests, wants this one


class PatchCell(TypedDict):
    """The effect of one part at one column of positions."""

    part: str
    column: str
    share: float
    """Of the whole difference between the runs."""
    low: float | None
    """Ends of the 95 % interval (bootstrap over groups of pairs); null with too few groups."""
    high: float | None


class PatchEstimate(TypedDict):
    """How far a gradient's estimate agrees with patching."""

    method: str
    pearson: float | None
    """Null where fewer than three cells have an effect."""
    spearman: float | None


class Measure95(TypedDict):
    """A value with its 95 % interval; null where there is none."""

    value: float | None
    low: float | None
    high: float | None


class PatchMediation(TypedDict):
    """How much of the corrupt prompt's effect passes through some parts."""

    mediators: list[str]
    total: Measure95
    indirect: Measure95
    direct: Measure95
    mediated: Measure95
    """Indirect over total."""


class PatchResult(TypedDict):
    """What `modelassay patch --json` prints."""

    schema_version: int
    subject: str
    direction: str
    pairs: int
    groups: int
    """Groups of pairs of the same prompts."""
    left_out: int
    """Pairs that could not be aligned."""
    total: float
    """Mean difference of the measure between the runs."""
    total_low: float | None
    total_high: float | None
    cells: list[PatchCell]
    estimates: list[PatchEstimate]
    complete: bool | None
    """Whether integrated gradients add up on every pair; null where they were not computed."""
    mediation: list[PatchMediation]
    """One a part; empty without --mediate."""
    paths: list[PatchCell] | None
    """Of the parts by direct paths alone; null without --paths."""
    file: str


class SteerPoint(TypedDict):
    """One strength of a sweep."""

    strength: float
    behaviour: float
    behaviour_low: float | None
    behaviour_high: float | None
    random_low: float
    """Least mean behaviour of the random directions."""
    random_high: float
    beyond_chance: bool
    perplexity: float
    perplexity_low: float | None
    perplexity_high: float | None
    cost: float
    """Steered over unsteered perplexity."""
    continuation: str
    """What the model writes after the first prompt."""


class SteerResult(TypedDict):
    """What `modelassay steer --json` prints."""

    schema_version: int
    subject: str
    site: str
    units: str
    operation: str
    behaviour: str
    unsteered: float
    unsteered_perplexity: float
    points: list[SteerPoint]
    file: str
