"""A lens's map and its curves as SVG pictures, for papers and slides."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import UnknownNameError
from modelassay.observe.lenses.quality import LensQuality
from modelassay.observe.lenses.reading import LensReading
from modelassay.report import svg
from modelassay.report.axes import number
from modelassay.report.lens_parts import MEANINGS, LensMeasure, MeasureMeaning, shades_of, values_of

_CELL, _HEIGHT, _LEFT, _TOP = 58.0, 22.0, 78.0, 44.0
_LETTERS = 8  # of a token, in one cell
_PER_BAND = 20  # tokens side by side, as many as a page is wide


def meaning_of(measure: str) -> MeasureMeaning:
    """What a measure is.

    Raises:
        UnknownNameError: no such measure.
    """
    known = {meaning.key: meaning for meaning in MEANINGS}
    if measure not in known:
        raise UnknownNameError("A lens's measure", measure, known)
    return known[measure]


def lens_picture(reading: LensReading, measure: LensMeasure = "probability") -> str:
    """The heat-map of one lens: tokens across, layers upwards, the likeliest token in each cell.

    Args:
        reading: what the lens saw.
        measure: colours the cells.

    Raises:
        UnknownNameError: no such measure.
    """
    meaning = meaning_of(measure)
    (shades,), full = shades_of((reading,), meaning.key)
    values = values_of(reading, meaning.key)
    n_tokens = len(reading.tokens)
    bands = range(0, n_tokens, _PER_BAND)
    band_height = _HEIGHT * (len(reading.depths) + 1) + 18
    width = _LEFT + _CELL * min(n_tokens, _PER_BAND) + 16
    unit = f", {meaning.unit}" if meaning.unit else ""
    end = "1" if meaning.key in ("probability", "target") else f"{number(full)} or more"
    parts = [
        svg.text(12, 20, f"{reading.subject}: {reading.lens} lens", size=13, bold=True),
        svg.text(12, 36, f"Colour: {meaning.title}{unit}; full at {end}", colour=svg.MUTED),
    ]
    for index, start in enumerate(bands):
        parts += _band(reading, meaning, shades, values, start, _TOP + index * band_height)
    height = _TOP + len(bands) * band_height
    return svg.document(width, height, parts, f"{reading.lens} lens over {n_tokens} tokens")


def _band(
    reading: LensReading,
    meaning: MeasureMeaning,
    shades: Float[Tensor, "depth token"],
    values: Float[Tensor, "depth token"],
    start: int,
    top: float,
) -> list[str]:
    parts: list[str] = []
    tokens = range(start, min(start + _PER_BAND, len(reading.tokens)))
    n_depths = len(reading.depths)
    for depth in range(n_depths):
        y = top + _HEIGHT * (n_depths - 1 - depth)
        parts.append(
            svg.text(_LEFT - 8, y + 15, reading.depths[depth], anchor="end", colour=svg.MUTED)
        )
        for column, token in enumerate(tokens):
            strength = float(shades[depth, token])
            word = reading.top_texts[int(reading.top[depth, token, 0])]
            tip = f"{word!r}: {meaning.title.lower()} {number(float(values[depth, token]))}"
            colour = svg.AMBER if meaning.good else svg.BLUE
            x = _LEFT + column * _CELL
            fill = svg.shade(0.9 * strength, colour)
            parts.append(svg.rectangle(x, y, _CELL - 1.5, _HEIGHT - 1.5, fill, tip))
            ink = "#ffffff" if strength > 0.6 and not meaning.good else svg.INK
            shown = svg.token_text(word, _LETTERS)
            parts.append(
                svg.text(
                    x + _CELL / 2, y + 14.5, shown, size=10, anchor="middle", colour=ink, mono=True
                )
            )
    y = top + _HEIGHT * n_depths + 14
    parts.append(svg.text(_LEFT - 8, y, "text", anchor="end", colour=svg.MUTED))
    for column, token in enumerate(tokens):
        shown = svg.token_text(reading.texts[token], _LETTERS)
        x = _LEFT + (column + 0.5) * _CELL
        parts.append(svg.text(x, y, shown, size=10, anchor="middle", mono=True, bold=True))
    return parts


_WIDTH, _PLOT_HEIGHT = 460.0, 300.0
_PLOT = (58.0, 44.0, 444.0, 258.0)
_COLOURS = (svg.BLUE, svg.AMBER, svg.GREEN, svg.RED)
_FLOOR = 1e-3  # nats: the last layer's 0 has no logarithm


def curves_picture(qualities: Sequence[LensQuality], subject: str, measure: str = "kl") -> str:
    """A measure by depth for several lenses, with 95 % intervals over documents.

    KL has a logarithmic axis from 0.001 nats, and leaves out the last depth, where it is 0.

    Args:
        qualities: as `measure_lenses` gives them.
        subject: the model's name.
        measure: one of `measures.MEASURES`.

    Raises:
        UnknownNameError: no such measure.
    """
    logarithmic = measure == "kl"
    found = [quality.estimates(measure) for quality in qualities]
    depths = qualities[0].depths[:-1] if logarithmic else qualities[0].depths
    n = len(depths)
    ends = [[each.value[:n], each.low[:n], each.high[:n]] for each in found]
    known = [v for each in ends for part in each for v in part.tolist() if math.isfinite(v)]
    scale = _Scale(known, n, logarithmic)
    titles = {m.key: m.title for m in MEANINGS}
    title = titles.get(measure, measure.capitalize())  # type: ignore[call-overload]
    total = int(qualities[0].tokens.sum())
    caption = f"{title}, nats" if measure in ("kl", "cross_entropy", "entropy") else title
    parts = [
        svg.text(12, 20, f"{subject}: {caption}", size=13, bold=True),
        svg.text(
            12, 35, f"{total:,} held-out tokens, {len(qualities[0].tokens)} documents; bands: 95 %",
            size=10, colour=svg.MUTED,
        ),
    ]  # fmt: skip
    parts += scale.axes(depths)
    for index, (quality, (value, low, high)) in enumerate(zip(qualities, ends, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        stroke = f"rgb{colour}"
        if bool(low.isfinite().all()):
            there = [scale.at(i, v) for i, v in enumerate(high.tolist())]
            back = [scale.at(i, v) for i, v in enumerate(low.tolist())][::-1]
            band = "M" + "L".join(there + back) + "Z"
            parts.append(
                svg.path(band, "none", fill=f"rgba({colour[0]},{colour[1]},{colour[2]},.2)")
            )
        line = "M" + "L".join(scale.at(i, v) for i, v in enumerate(value.tolist()))
        parts.append(svg.path(line, stroke))
        y = 56 + 15 * index
        parts.append(svg.path(f"M330 {y - 4}h22", stroke, width=2.5))
        parts.append(svg.text(358, y, f"{quality.lens} lens"))
    return svg.document(_WIDTH, _PLOT_HEIGHT, parts, f"{caption} by layer in {subject}")


class _Scale:
    """Where a depth and a value lie in the plot."""

    def __init__(self, values: list[float], n: int, logarithmic: bool) -> None:
        self.n, self.logarithmic = n, logarithmic
        scaled = [self._scaled(value) for value in values] or [0.0, 1.0]
        low = min(scaled) if logarithmic else min(0.0, *scaled)
        spread = (max(scaled) - low) or 1.0
        self.low, self.high = low - 0.04 * spread, max(scaled) + 0.06 * spread

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, _FLOOR)) if self.logarithmic else value

    def x(self, index: int) -> float:
        left, _, right, _ = _PLOT
        return left + (index + 0.5) * (right - left) / self.n

    def y(self, value: float) -> float:
        _, top, _, bottom = _PLOT
        share = (self._scaled(value) - self.low) / (self.high - self.low)
        return bottom - share * (bottom - top)

    def at(self, index: int, value: float) -> str:
        return f"{self.x(index):.1f} {self.y(value):.1f}"

    def ticks(self) -> list[float]:
        if self.logarithmic:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            ticks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            return [t for t in ticks if self.low <= math.log10(t) <= self.high]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        if (self.high - self.low) / step > 6:
            step *= 2
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]

    def axes(self, depths: Sequence[str]) -> list[str]:
        left, _, right, bottom = _PLOT
        parts: list[str] = []
        for tick in self.ticks():
            y = self.y(tick)
            parts.append(svg.path(f"M{left:g} {y:.1f}H{right:g}", svg.LINE, width=0.8))
            parts.append(
                svg.text(left - 6, y + 3.5, f"{tick:g}", size=10, anchor="end", colour=svg.MUTED)
            )
        every = max(1, math.ceil(len(depths) / 14))
        for index in range(0, len(depths), every):
            name = "emb." if depths[index] == "embedding" else depths[index]
            x = self.x(index)
            parts.append(svg.text(x, bottom + 15, name, size=10, anchor="middle", colour=svg.MUTED))
        middle = (left + right) / 2
        parts.append(
            svg.text(middle, bottom + 33, "layer", size=10.5, anchor="middle", colour=svg.MUTED)
        )
        return parts
