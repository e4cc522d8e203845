"""The frame of a plot, and mixtures of colours, for the drawings of toy models."""

from dataclasses import dataclass

from modelassay.report.axes import Axis, tick_label
from modelassay.report.svg import LINE, MUTED, path, text


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A plot's place on the paper and its axes."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point on the paper."""
        across = self.left + self.x.position(x) * self.width
        return round(across, 2), round(self.top + (1 - self.y.position(y)) * self.height, 2)

    def axes(self, x_title: str, y_title: str) -> list[str]:
        """Both axes with ticks and titles."""
        bottom = self.top + self.height
        parts = [path(f"M{self.left:g} {self.top:g}V{bottom:g}H{self.left + self.width:g}", LINE)]
        for tick in self.x.ticks():
            parts.append(text(self.at(tick, 0)[0], bottom + 15, tick_label(tick), anchor="middle"))
        for tick in self.y.ticks():
            y = self.at(self.x.low, tick)[1]
            parts.append(text(self.left - 6, y + 4, tick_label(tick), anchor="end"))
        middle = self.left + self.width / 2
        parts.append(text(middle, bottom + 32, x_title, anchor="middle", colour=MUTED))
        parts.append(text(self.left - 34, self.top - 8, y_title, colour=MUTED))
        return parts


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """A colour as SVG writes it."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def mixed(first: tuple[int, int, int], second: tuple[int, int, int], share: float) -> str:
    """The colour at a share of the way from the first to the second."""
    return hexadecimal(
        tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))  # type: ignore[arg-type]
    )
