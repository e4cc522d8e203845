"""Heat-maps of patching and curves of steering as SVG, for pages, papers and slides."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.report import svg
from modelassay.report.axes import Axis, axis_over, number, tick_label
from modelassay.report.intervention_parts import Curve, EffectMap, StrengthCurves

_CELL, _HEIGHT, _TOP = 44.0, 22.0, 54.0
_LETTER = 6.3  # width of a letter of a label
_NARROW = 28  # columns from which cells carry no numbers
_PANEL_WIDTH, _PANEL_HEIGHT, _MARGIN = 400.0, 300.0, 58.0
_NULL = "#8f8c84"


def effect_picture(part: EffectMap) -> str:
    """A heat-map: amber where a part carries the effect over, blue where it works against it.

    The full colour is a share of 1, or the largest share where one is larger.
    """
    n_columns = len(part.columns)
    narrow = n_columns > _NARROW
    cell = 22.0 if narrow else _CELL
    left = 20 + _LETTER * max(map(len, part.rows))
    labels = [svg.token_text(name.replace(" ", "\u2002"), 14) for name in part.columns]
    bottom = 16 + _LETTER * max(map(len, labels))
    height = _TOP + _HEIGHT * len(part.rows)
    full = max(1.0, float(part.shares.abs().nan_to_num().max()))
    scale = f"Share of the effect; full colour at {number(full)}"
    parts = [
        svg.text(12, 20, part.title, size=13, bold=True),
        svg.text(12, 38, scale, colour=svg.MUTED),
    ]
    for row, name in enumerate(part.rows):
        y = _TOP + _HEIGHT * row
        parts.append(svg.text(left - 8, y + 15, name, anchor="end", colour=svg.MUTED))
        for column in range(n_columns):
            parts += _cell(part, row, column, left + cell * column, y, cell, full, narrow)
    for column, label in enumerate(labels):
        parts.append(_turned(left + cell * (column + 0.5) + 4, height + 8, label))
    words = max(7.2 * len(part.title), 5.6 * len(scale))
    width = max(left + cell * n_columns + 16, 24 + words)
    return svg.document(width, height + bottom, parts, part.title)


def _cell(
    part: EffectMap,
    row: int,
    column: int,
    x: float,
    y: float,
    width: float,
    full: float,
    narrow: bool,
) -> list[str]:
    share = float(part.shares[row, column])
    colour = svg.AMBER if share >= 0 else svg.BLUE
    strength = 0.0 if math.isnan(share) else min(1.0, abs(share) / full)
    ends = [float(end[row, column]) for end in (part.low, part.high)]
    interval = "" if any(map(math.isnan, ends)) else f" [{number(ends[0])}, {number(ends[1])}]"
    tip = f"{part.rows[row]} at {part.columns[column]}: {number(share)}{interval}"
    drawn = [svg.rectangle(x + 1, y + 1, width - 2, _HEIGHT - 2, svg.shade(strength, colour), tip)]
    if not narrow and abs(share) >= 0.005:
        ink = "#ffffff" if strength > 0.6 and share < 0 else svg.INK
        label = f"{share:.2f}".replace("-", "\u2212")
        drawn.append(svg.text(x + width / 2, y + 15, label, size=10, anchor="middle", colour=ink))
    return drawn


def _turned(x: float, y: float, label: str) -> str:
    inner = svg.text(0, 0, label, size=10, anchor="end", colour=svg.MUTED)
    return f'<g transform="translate({x:g} {y:g}) rotate(-90)">{inner}</g>'


def curves_picture(part: StrengthCurves) -> str:
    """Panels side by side: the units' curve with its interval, random directions in grey."""
    parts = [svg.text(12, 20, part.title, size=13, bold=True)]
    for index, curve in enumerate(part.curves):
        parts += _panel(part.strengths, curve, index * (_PANEL_WIDTH + 12), 34.0)
    legend = 34 + _PANEL_HEIGHT + 14
    parts += [
        svg.path(f"M20 {legend}h22", svg.shade(1, svg.AMBER), width=2.4),
        svg.text(48, legend + 4, "steered, with its 95 % interval", colour=svg.MUTED),
        svg.path(f"M250 {legend}h22", _NULL, width=1),
        svg.text(278, legend + 4, "random directions, the same changes", colour=svg.MUTED),
        _dashed(f"M500 {legend}h22"),
        svg.text(528, legend + 4, "unsteered", colour=svg.MUTED),
    ]
    width = len(part.curves) * (_PANEL_WIDTH + 12)
    return svg.document(max(width, 610.0), legend + 18, parts, part.title)


def _panel(strengths: tuple[float, ...], curve: Curve, left: float, top: float) -> list[str]:
    x_axis = Axis(low=min(strengths), high=max(strengths) or 1.0)
    if x_axis.low == x_axis.high:
        x_axis = Axis(low=x_axis.low - 1, high=x_axis.high + 1)
    y_axis = _vertical(curve)
    inner_width, inner_height = _PANEL_WIDTH - _MARGIN - 12, _PANEL_HEIGHT - 70

    def place(strength: float, value: float) -> tuple[float, float]:
        across = left + _MARGIN + x_axis.position(strength) * inner_width
        return across, top + 26 + (1 - y_axis.position(value)) * inner_height

    bottom = top + 26 + inner_height
    parts = [svg.text(left + _MARGIN, top + 14, curve.title, bold=True)]
    for tick in y_axis.ticks():
        y = place(x_axis.low, tick)[1]
        parts.append(svg.path(f"M{left + _MARGIN:g} {y:g}h{inner_width:g}", svg.LINE, width=1))
        parts.append(
            svg.text(left + _MARGIN - 6, y + 4, tick_label(tick), anchor="end", colour=svg.MUTED)
        )
    for tick in x_axis.ticks():
        x = place(tick, y_axis.low)[0]
        parts.append(svg.text(x, bottom + 16, tick_label(tick), anchor="middle", colour=svg.MUTED))
    middle = left + _MARGIN + inner_width / 2
    parts.append(svg.text(middle, bottom + 34, "strength", anchor="middle", colour=svg.MUTED))

    def line(values: Float[Tensor, " strength"]) -> str:
        points = [place(s, v) for s, v in zip(strengths, values.tolist(), strict=True)]
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)

    parts += [svg.path(line(row), _NULL, width=0.8) for row in curve.random]
    if not bool((curve.low.isnan() | curve.high.isnan()).any()):
        back = [place(s, v) for s, v in zip(strengths, curve.high.tolist(), strict=True)][::-1]
        around = line(curve.low) + "".join(f"L{x:.1f} {y:.1f}" for x, y in back) + "Z"
        parts.append(f'<path d="{around}" fill="{svg.shade(1, svg.AMBER)}" fill-opacity="0.22"/>')
    start, end = (place(s, curve.baseline) for s in (x_axis.low, x_axis.high))
    parts.append(_dashed(f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"))
    parts.append(svg.path(line(curve.value), svg.shade(1, svg.AMBER), width=2.4))
    for strength, value in zip(strengths, curve.value.tolist(), strict=True):
        x, y = place(strength, value)
        tip = f"strength {number(strength)}: {number(value)}"
        parts.append(svg.rectangle(x - 3, y - 3, 6, 6, svg.shade(1, svg.AMBER), tip))
    return parts


def _vertical(curve: Curve) -> Axis:
    own = torch.cat([curve.value, curve.low, curve.high])
    shown = (*own[own.isfinite()].tolist(), curve.baseline)
    if curve.logarithmic:
        low, high = min(shown), max(*shown, float(curve.random.max()))
        return (
            Axis(low=low / 1.08, high=high * 1.08, log=True)
            if high / low > 30
            else _linear([low, high])
        )
    return axis_over(curve.random.flatten().double().numpy(), include=shown)


def _linear(values: list[float]) -> Axis:
    spread = (max(values) - min(values)) or 1.0
    return Axis(low=min(values) - 0.06 * spread, high=max(values) + 0.06 * spread)


def _dashed(steps: str) -> str:
    return (
        f'<path d="{steps}" fill="none" stroke="{svg.MUTED}" stroke-width="1.2" '
        'stroke-dasharray="4 4"/>'
    )
