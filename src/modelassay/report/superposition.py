"""The page of experiments with toy models: a section each."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from modelassay.observe.superposition.experiments import EXPERIMENTS
from modelassay.observe.superposition.study import Study
from modelassay.report.axes import number
from modelassay.report.degrade import or_broken
from modelassay.report.page_ending import footer, provenance_table, references
from modelassay.report.parts import (
    Definition,
    Definitions,
    Page,
    Paragraph,
    Part,
    Section,
    Table,
)
from modelassay.report.picture_parts import Picture, PictureWall
from modelassay.report.report import Report
from modelassay.report.superposition_figures import WIDTH, draw

REFERENCES = ("elhage2022",)


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorPicture(Picture):
    """A picture drawn in SVG."""

    png: bytes = b""
    svg: str

    @property
    def address(self) -> str:
        """The picture itself, as the address of an image."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"


def superposition_report(studies: Sequence[Study]) -> Report:
    """The page of some studies."""
    first = studies[0].provenance
    sections = [_section(study) for study in studies]
    sections.append(Section(anchor="methods", title="Methods", parts=_methods(studies)))
    return Report(
        Page(
            title="Toy models of superposition",
            subtitle=f"{len(studies)} experiments",
            sections=tuple(sections),
            footer=footer(first, ", ".join(study.name for study in studies)),
        )
    )


def _section(study: Study) -> Section:
    asks = EXPERIMENTS[study.name].asks if study.name in EXPERIMENTS else ""
    return Section(
        anchor=study.name,
        title=study.title,
        parts=(
            Paragraph(text=asks or study.shows),
            or_broken(study.title, lambda: _picture(study)),
            or_broken("Numbers", lambda: _numbers(study)),
        ),
    )


def _picture(study: Study) -> Part:
    picture = VectorPicture(title="", svg=draw(study))
    return PictureWall(title="", pictures=(picture,), caption=study.shows, width=int(WIDTH))


def _numbers(study: Study) -> Part:
    columns = tuple(dict.fromkeys(key for row in study.rows for key in row))
    rows = tuple(
        tuple(
            value if isinstance(value, str) else _shown(value)
            for value in (row.get(column, "") for column in columns)
        )
        for row in study.rows
    )
    return Table(
        title="Numbers",
        columns=columns,
        rows=rows,
        caption="Losses are summed over features and measured on inputs drawn after training.",
    )


def _shown(value: float) -> str:
    return f"{value:,g}" if float(value).is_integer() and abs(value) < 1e6 else number(value)


def _methods(studies: Sequence[Study]) -> tuple[Part, ...]:
    return (
        Definitions(
            title="What the words mean",
            entries=(
                Definition(term="density", text="The chance that a feature is on (1 − S)."),
                Definition(
                    term="interference",
                    text="The sum over other features of (Ŵ_i · W_j)²: from 1 on, others excite a "
                    "feature as strongly as it does itself.",
                ),
                Definition(
                    term="D, dimensionality",
                    text="|W_i|² over the sum over all features of (Ŵ_i · W_j)²: the share of a "
                    "dimension that a feature has.",
                ),
                Definition(
                    term="represented", text="The norm of the feature's weights is above 0.5."
                ),
            ),
        ),
        Table(
            title="Settings",
            columns=("experiment", "settings"),
            rows=tuple((study.name, _settings(study)) for study in studies),
            caption="",
        ),
        provenance_table(studies[0].provenance),
        references(REFERENCES),
    )


def _settings(study: Study) -> str:
    settings = dict(study.settings)
    training = settings.pop("training", {})
    shown = {key: value for key, value in settings.items() if key not in _OF_DRAWINGS}
    return ", ".join(f"{key} {value}" for key, value in (shown | training).items())


_OF_DRAWINGS = ("densities", "x_title", "y_title", "levels", "colour_by_set")
