"""Page -> a summary for a terminal."""

import textwrap
from collections.abc import Callable
from typing import Any

from modelassay.report.axes import number, percent
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
        if drawn:
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
    width = max(23, *(len(name) + 2 for name in part.columns))
    lines = ["  " + "".join(f"{name:<{width}}" for name in part.columns).rstrip()]
    for metric in part.metrics:
        lines.append(_metric_title(metric))
        lines.append("  " + "".join(f"{_interval(e):<{width}}" for e in metric.estimates).rstrip())
    return "\n".join(lines)


def _metric_title(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    return (
        f"{metric.title}{unit}{_ARROWS[metric.better]} "
        f"(null {number(metric.null)}, n = {metric.n:,})"
    )


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _broken(part: Broken) -> str:
    return f"{part.title}: could not be made ({part.error})"


_DRAW: dict[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    Shares: _shares,
    Comparison: _comparison,
    Broken: _broken,
}
