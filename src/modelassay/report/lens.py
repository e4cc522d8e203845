"""The page of a lens over one text: the interactive map, and a table by layer."""

from modelassay.core.provenance import Provenance
from modelassay.observe.lenses.reading import LensReading
from modelassay.report.axes import number
from modelassay.report.lens_parts import MEANINGS, LensMap, LensMeasure, values_of
from modelassay.report.page_ending import footer, provenance_table, references
from modelassay.report.parts import Definition, Definitions, Page, Paragraph, Section, Table
from modelassay.report.report import Report

REFERENCES = ("nostalgebraist2020", "belrose2023", "elhage2021")
_COLUMNS: tuple[LensMeasure, ...] = ("kl", "cross_entropy", "entropy", "probability")


def lens_report(readings: tuple[LensReading, ...], provenance: Provenance) -> Report:
    """The page of one text, read through one or several lenses.

    Args:
        readings: of the same text and model, as `lens_reading` gives them.
        provenance: printed at the foot.
    """
    first = readings[0]
    names = ", ".join(f"{reading.lens} lens" for reading in readings)
    page = Page(
        title=f"{first.subject} · lens",
        subtitle=f"{names} · {len(first.tokens)} tokens",
        sections=(
            Section(
                anchor="map", title="What each layer predicts", parts=(_lead(), _map(readings))
            ),
            Section(
                anchor="layers",
                title="By layer",
                parts=tuple(_table(reading) for reading in readings),
            ),
            Section(
                anchor="methods",
                title="Methods",
                parts=(_definitions(), provenance_table(provenance), references(REFERENCES)),
            ),
        ),
        footer=footer(provenance, f"{first.subject} · {names}"),
    )
    return Report(page)


def _lead() -> Paragraph:
    return Paragraph(
        text="Each column is a token of the text, each row the residual stream after a layer, the "
        "last one on top. A cell shows the token that would come next if the model ended there. "
        "Point at a cell for the likeliest tokens; click to keep it."
    )


def _map(readings: tuple[LensReading, ...]) -> LensMap:
    return LensMap(
        title="Lens",
        caption="The top row is the model's own prediction in every lens. What a lens shows below "
        "is what can be read linearly at that depth, which the model need not use.",
        readings=readings,
    )


def _table(reading: LensReading) -> Table:
    """Means over the tokens of this text, which one text does not make an estimate."""
    rows: list[tuple[str, ...]] = []
    for depth in reversed(range(len(reading.depths))):
        means = [float(values_of(reading, key)[depth].nanmean()) for key in _COLUMNS]
        ranks = reading.rank[depth]
        known = ranks[ranks >= 0]
        median = float(known.float().median()) if len(known) else float("nan")
        rows.append((reading.depths[depth], *(number(mean) for mean in means), f"{median:,g}"))
    return Table(
        title=f"{reading.lens[0].upper()}{reading.lens[1:]} lens",
        columns=(
            "layer",
            "KL from the final prediction",
            "cross-entropy",
            "entropy",
            "top token's probability",
            "next token's median rank",
        ),
        rows=tuple(rows),
        caption="Means over the tokens of this text, in nats. One text says little of a model: "
        "modelassay lens train compares lenses on held-out documents.",
    )


def _definitions() -> Definitions:
    return Definitions(
        title="What the colours mean",
        entries=tuple(
            Definition(
                term=f"{meaning.title}{f', {meaning.unit}' if meaning.unit else ''}",
                text=meaning.explains,
            )
            for meaning in MEANINGS
        ),
    )
