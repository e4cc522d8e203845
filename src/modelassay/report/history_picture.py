"""What, when and where: one small heat-map a concept, layers upwards and training steps across."""

import math

from modelassay.observe.probes.scores import Measured
from modelassay.observe.probes.training_history import Measure, TrainingHistory
from modelassay.report import svg
from modelassay.report.axes import number

TITLES: dict[Measure, str] = {
    "lead": "Lead over the best control",
    "score": "Score (2 AUROC − 1, or R²)",
    "over_token": "Lead over the token alone",
    "over_bag": "Lead over the bag of tokens read",
    "over_null": "Lead over the null twin",
    "selectivity": "Selectivity: score less that on a control task",
}
_COLUMNS = 4
_LABEL, _GAP, _TITLE, _FOOT = 6.3, 22.0, 26.0, 30.0
_HIGH, _WIDE, _NARROW = 15.0, 24.0, 11.0
_MOST_WIDE = 12  # steps from which cells are narrow
_TOP, _LEGEND = 58.0, 150.0


def history_picture(history: TrainingHistory, measure: Measure = "lead") -> str:
    """Small multiples with one colour scale: amber above 0, blue below.

    The largest value has the full colour; as far below 0, or further, a cell is full blue. A dot
    marks cells whose 95 % interval lies above 0.
    """
    values, low, high = history.bounds(measure)
    n_steps, n_sites = len(history.steps), len(history.sites)
    rows = site_labels(history.sites)
    cell = _WIDE if n_steps <= _MOST_WIDE else _NARROW
    left = 14 + _LABEL * max(map(len, rows))
    panel = max(cell * n_steps, 130.0)
    height = _TITLE + _HIGH * n_sites + _FOOT
    full = _full(float(values.nan_to_num().max()))
    parts = [
        svg.text(12, 20, f"{history.subject}: {_title(measure)}", size=13, bold=True),
        svg.text(12, 37, "Layers upwards, training steps across; a dot: interval above 0",
                 colour=svg.MUTED),
    ]  # fmt: skip
    for index, concept in enumerate(history.concepts):
        x = left + (index % _COLUMNS) * (panel + _GAP)
        y = _TOP + (index // _COLUMNS) * height
        parts.append(svg.text(x, y + 16, concept, bold=True))
        for site in range(n_sites):
            top = y + _TITLE + _HIGH * (n_sites - 1 - site)
            if index % _COLUMNS == 0:
                parts.append(
                    svg.text(x - 6, top + 11, rows[site], size=9, anchor="end", colour=svg.MUTED)
                )
            for step in range(n_steps):
                at = (index, site, step)
                measured = Measured(
                    value=float(values[at]), low=float(low[at]), high=float(high[at])
                )
                tip = f"{concept}, {history.sites[site]}, step {history.steps[step]}: {measured}"
                parts += _cell(x + cell * step, top, cell, measured, full, tip)
        parts += _steps(history.steps, x, y + _TITLE + _HIGH * n_sites + 12, cell)
    columns = min(_COLUMNS, len(history.concepts))
    width = max(left + columns * (panel + _GAP), 620.0)
    parts += _scale(width - _LEGEND - 66, full)
    bands = math.ceil(len(history.concepts) / _COLUMNS)
    return svg.document(width, _TOP + bands * height, parts, TITLES[measure])


def _title(measure: Measure) -> str:
    return TITLES[measure][0].lower() + TITLES[measure][1:]


def site_labels(sites: tuple[str, ...]) -> tuple[str, ...]:
    """Streams by the number of their layer, "in" for what enters the model; else whole names."""
    short = {"resid_pre.0": "in"} | {
        name: name.removeprefix("resid_post.") for name in sites if name.startswith("resid_post.")
    }
    return tuple(short[s] for s in sites) if all(s in short for s in sites) else sites


def _cell(x: float, y: float, width: float, found: Measured, full: float, tip: str) -> list[str]:
    if math.isnan(found.value):
        return [svg.rectangle(x + 0.5, y + 0.5, width - 1, _HIGH - 1, svg.PAPER, tip)]
    strength = min(1.0, abs(found.value) / full)
    fill = svg.shade(strength, svg.AMBER if found.value >= 0 else svg.BLUE)
    drawn = [svg.rectangle(x + 0.5, y + 0.5, width - 1, _HIGH - 1, fill, tip)]
    if found.low > 0:
        drawn.append(
            f'<circle cx="{x + width / 2:g}" cy="{y + _HIGH / 2:g}" r="1.8" fill="{svg.INK}"/>'
        )
    return drawn


def _steps(steps: tuple[int, ...], x: float, y: float, cell: float) -> list[str]:
    """Labels under the columns, without those that would stand on one before them."""
    drawn: list[str] = []
    free = -math.inf
    for column, step in enumerate(steps):
        middle, half = x + cell * (column + 0.5), 2.7 * len(str(step)) + 2
        if middle - half >= free:
            drawn.append(svg.text(middle, y, str(step), size=9, anchor="middle", colour=svg.MUTED))
            free = middle + half
    return drawn


def _scale(left: float, full: float) -> list[str]:
    n = 15
    wide = _LEGEND / n
    drawn: list[str] = []
    for index in range(n):
        value = 2 * index / (n - 1) - 1
        fill = svg.shade(abs(value), svg.AMBER if value >= 0 else svg.BLUE)
        drawn.append(svg.rectangle(left + 34 + index * wide, 26, wide, 11, fill))
    drawn.append(svg.text(left + 30, 36, f"−{number(full, 2)}", anchor="end", colour=svg.MUTED))
    drawn.append(svg.text(left + 38 + _LEGEND, 36, number(full, 2), colour=svg.MUTED))
    return drawn


def _full(largest: float) -> float:
    """The value of the full colour: a round one, and the noise of small ones stays pale."""
    return max(0.3, math.ceil(largest * 10 - 1e-9) / 10)
