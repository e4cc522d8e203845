"""Page -> a summary for a terminal."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from modelassay.report.axes import number, percent
from modelassay.report.observation_parts import ObservationList
from modelassay.report.parts import Broken, Comparison, Estimate, Metric, Page, Paragraph, Shares

_WIDTH = 88
_BAR = 40
_FILLS = "█▓▒·"
_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}


def render(page: Page) -> str:
    """The page's verdicts and tables; what needs a picture is left to the HTML report."""
    blocks = [f"{page.title} · {page.subtitle}"]
    for section in page.sections:
        drawn = [_DRAW[type(part)](part) for part in section.parts if type(part) in _DRAW]
        # Prose alone would speak of a figure that is not here.
        if any(type(part) in _DRAW and type(part) is not Paragraph for part in section.parts):
            blocks.append(f"{section.title.upper()}\n" + "\n\n".join(drawn))
    blocks.append(page.footer)
    return "\n\n".join(blocks) + "\n"


def _paragraph(part: Paragraph) -> str:
    return textwrap.fill(f"{part.title} {part.text}".strip(), _WIDTH)


def _shares(part: Shares) -> str:
    lines = [part.title]
    widest = max(len(bar.name) for bar in part.bars)
    for bar in part.bars:
        shares = [bar.shares.get(c.key, 0.0) for c in part.classes]
        words = " · ".join(
            f"{c.key} {percent(s)}" for c, s in zip(part.classes, shares, strict=True)
        )
        n = f" (n = {bar.n:,})" if bar.n else ""
        lines.append(f"  {bar.name:<{widest}}  {_stacked(shares)}")
        lines.append(f"  {'':<{widest}}  {words}{n}")
    return "\n".join(lines)


def _stacked(shares: list[float]) -> str:
    # Cumulative rounding, so that the parts always fill the bar.
    text, total = "", 0.0
    for fill, share in zip(_FILLS, shares, strict=False):
        total += share
        text += fill * (round(total * _BAR) - len(text))
    return text


def _comparison(part: Comparison) -> str:
    if part.folded:
        return f"{part.title}: in the HTML report."
    intervals = [[_interval(e) for e in metric.estimates] for metric in part.metrics]
    nulls = [[_null(e) for e in metric.estimates] for metric in part.metrics]
    columns = zip(part.columns, *intervals, *nulls, strict=True)
    widths = [max(map(len, column)) + 2 for column in columns]
    lines = [_row(part.columns, widths)]
    for metric, interval, null in zip(part.metrics, intervals, nulls, strict=True):
        lines += [_metric_title(metric), _row(interval, widths), _row(null, widths)]
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: list[int]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
    return "  " + "".join(padded).rstrip()


def _metric_title(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit}{_ARROWS[metric.better]} (n = {metric.n:,})"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _null(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"null {number(estimate.null)}"


def _broken(part: Broken) -> str:
    return f"{part.title}: could not be made ({part.error})"


def _observations(part: ObservationList) -> str:
    return "\n".join(
        f"  {entry.title}: {entry.summary or entry.problem}  {entry.address}".rstrip()
        for entry in part.entries
    )


_DRAW: dict[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    Shares: _shares,
    Comparison: _comparison,
    Broken: _broken,
    ObservationList: _observations,
}
