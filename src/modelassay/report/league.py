"""The page of a league, to read in a browser."""

from collections.abc import Callable

from modelassay.report.degrade import or_broken
from modelassay.report.parts import Page, Part, Section
from modelassay.report.report import Report
from modelassay.report.sections import league
from modelassay.testbeds.league import League

Maker = Callable[[League], Part]

_PLAN: tuple[tuple[str, str, tuple[Maker, ...]], ...] = (
    ("overview", "Overview", (league.headline, league.overview, league.how_to_read)),
    ("league", "League", (league.standings,)),
    ("known", "Known numbers", (league.known_numbers,)),
)
_AFTER: tuple[tuple[str, str, tuple[Maker, ...]], ...] = (
    ("methods", "Methods", (league.definitions, league.provenance, league.references)),
)


def league_page(result: League) -> Page:
    """The page of a league. A part that cannot be made is replaced by one that says so."""
    exhibits = tuple(
        or_broken(entry.name, lambda entry=entry: league.exhibit(result, entry))
        for entry in result.testbeds
    )
    count, seeds = len(result.testbeds), len(result.seeds)
    versions = result.provenance.versions
    return Page(
        title="League of methods on testbeds",
        subtitle=f"{len(result.methods)} methods on {count} testbeds with two known truths, "
        f"{seeds} constructions of each",
        sections=(
            *_sections(result, _PLAN),
            Section(anchor="testbeds", title="Testbeds", parts=exhibits),
            *_sections(result, _AFTER),
        ),
        footer=f"modelassay {versions.get('modelassay', '')} · {count} testbeds · seeds "
        f"{result.seeds[0]} … {result.seeds[-1]} · {result.provenance.created}",
    )


def league_report(result: League) -> Report:
    """The report of a league."""
    return Report(league_page(result))


def _sections(
    result: League, plan: tuple[tuple[str, str, tuple[Maker, ...]], ...]
) -> tuple[Section, ...]:
    return tuple(
        Section(anchor=anchor, title=title, parts=tuple(_made(maker, result) for maker in makers))
        for anchor, title, makers in plan
    )


def _made(maker: Maker, result: League) -> Part:
    return or_broken(maker.__name__.replace("_", " ").capitalize(), lambda: maker(result))
