"""Axes that a few wild values cannot stretch, and numbers as people write them."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_COVERED = 0.995  # of the values lie inside the axis; the rest is drawn at its ends (ours)
_DECADES = 2.5  # a positive quantity that spans more is drawn on a logarithmic axis (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A range of values, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def position(self, value: float) -> float:
        """Where a value lies along the axis, from 0 to 1; outside values lie at the ends."""
        if math.isnan(value):
            return math.nan
        return min(1.0, max(0.0, (self._scaled(value) - self._scaled(self.low)) / self._length()))

    def value(self, position: float) -> float:
        """The inverse of `position`."""
        scaled = self._scaled(self.low) + position * self._length()
        return 10**scaled if self.log else scaled

    def ticks(self, about: int = 4) -> tuple[float, ...]:
        """Round values along the axis."""
        if self.log:
            return _decades(self.low, self.high, about)
        step = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = 12 - math.floor(math.log10(step))
        return tuple(round(i * step, digits) for i in range(first, last + 1))

    def _scaled(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value) if value > 0 else -math.inf

    def _length(self) -> float:
        return self._scaled(self.high) - self._scaled(self.low)


def axis_over(
    values: Float[np.ndarray, " value"], *, include: tuple[float, ...] = (), margin: float = 0.04
) -> Axis:
    """An axis over nearly all of the values, and over all of `include`.

    It is logarithmic if the values are positive and span more than two and a half decades.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    wanted = np.array([v for v in include if math.isfinite(v)], dtype=np.float64)
    if len(finite) + len(wanted) == 0:
        return Axis(low=0.0, high=1.0)
    if len(finite):
        tail = (1 - _COVERED) / 2
        wanted = np.concatenate([wanted, np.quantile(finite, [tail, 1 - tail])])
    positive = finite[finite > 0]
    if (finite >= 0).all() and (wanted >= 0).all() and len(positive) > len(finite) / 2:
        low, high = float(np.quantile(positive, 1 - _COVERED)), float(wanted.max())
        if high / low > 10**_DECADES:
            stretch = (high / low) ** margin
            return Axis(low=low / stretch, high=high * stretch, log=True)
    low, high = float(wanted.min()), float(wanted.max())
    width = (high - low) or abs(high) or 1.0
    return Axis(low=low - margin * width, high=high + margin * width)


def bin_counts(axis: Axis, values: Float[np.ndarray, " value"], bins: int) -> tuple[int, ...]:
    """Values per bin of the axis; those beyond its ends count in the outermost bins."""
    finite = values[np.isfinite(values)]
    positions = np.array([axis.position(float(v)) for v in finite])
    indices = np.minimum((positions * bins).astype(np.int64), bins - 1)
    return tuple(int(c) for c in np.bincount(indices, minlength=bins))


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, as a reader wants it: 0.0123, 1,234, 1.2×10⁻⁵."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    sign, size = ("−" if value < 0 else ""), abs(value)
    if size == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{sign}{mantissa}×10{power}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{sign}{size:,.{decimals}f}"


def tick_label(value: float) -> str:
    """A round number in as few characters as it takes."""
    text = number(value, 4)
    if "×" in text:
        mantissa, power = text.split("×")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return power if mantissa == "1" else f"{mantissa}×{power}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """A share as a percentage: whole above 10 %, else with one decimal."""
    if math.isnan(share):
        return "–"
    if share == 0:
        return "0%"
    if share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if step <= m * power * (1 + 1e-9))


def _decades(low: float, high: float, about: int) -> tuple[float, ...]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / about))
    return tuple(float(f"1e{e}") for e in range(first, last + 1, stride))
