"""Geometry of pictures and grids: what lies where, in the units of the drawing."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modelassay.report.axes import Axis, tick_label
from modelassay.testbeds.picture import Drawing, Grid, Marks, Picture

PLOT_WIDTH, PLOT_HEIGHT = 340.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 8.0, 38.0
_MARGIN = 0.05  # of the range, left free around the marks
_MOST_POINTS = 1500  # of one kind; more would hide each other, and fill the page
_HEAD = 6.0  # length of an arrow's head
_CELL, _GRID_WIDTH, _GRID_HEIGHT = 30.0, 300.0, 240.0
_LETTER = 5.6  # width of a letter of a label
_MOST_LABELS = 16
_SHADES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One kind of marks."""

    kind: str
    role: str
    title: str
    path: str
    """SVG path."""
    variant: int
    """Tells marks of one kind and role apart: 0, 1, …"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A picture ready to draw."""

    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    shapes: tuple[Shape, ...]


def plot(picture: Picture) -> Plot:
    """Axes and paths of a picture."""
    right, bottom = PLOT_WIDTH - _RIGHT, PLOT_HEIGHT - _BOTTOM
    x_axis, y_axis = (_axis(picture, name) for name in ("x", "y"))
    if picture.equal:
        x_axis, y_axis = _equal(x_axis, y_axis, right - _LEFT, bottom - _TOP)

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x_axis.low) / (x_axis.high - x_axis.low) * (right - _LEFT)
        up = bottom - (y - y_axis.low) / (y_axis.high - y_axis.low) * (bottom - _TOP)
        return round(across, 1), round(up, 1)

    shapes: list[Shape] = []
    for marks in picture.marks:
        points = [
            place(x, y) if math.isfinite(x) and math.isfinite(y) else None
            for x, y in _thinned(marks)
        ]
        origin = place(0.0, 0.0)
        path = _path(marks.kind, points, origin)
        alike = sum((s.kind, s.role) == (marks.kind, marks.role) for s in shapes)
        shapes.append(
            Shape(kind=marks.kind, role=marks.role, title=marks.title, path=path, variant=alike % 5)
        )
    return Plot(
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=tuple((place(t, y_axis.low)[0], tick_label(t)) for t in x_axis.ticks()),
        y_ticks=tuple((place(x_axis.low, t)[1], tick_label(t)) for t in y_axis.ticks()),
        shapes=tuple(shapes),
    )


Point = tuple[float, float]


def _axis(picture: Picture, name: str) -> Axis:
    values = torch.cat([getattr(marks, name).float().flatten() for marks in picture.marks])
    values = values[values.isfinite()]
    if any(marks.kind == "arrows" for marks in picture.marks):
        values = torch.cat([values, torch.zeros(1)])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    spread = (high - low) or abs(high) or 1.0
    return Axis(low=low - _MARGIN * spread, high=high + _MARGIN * spread)


def _equal(x: Axis, y: Axis, width: float, height: float) -> tuple[Axis, Axis]:
    """Both axes with as many pixels to a unit, none shorter than before."""
    unit = max((x.high - x.low) / width, (y.high - y.low) / height)

    def stretched(axis: Axis, length: float) -> Axis:
        middle = (axis.low + axis.high) / 2
        return Axis(low=middle - unit * length / 2, high=middle + unit * length / 2)

    return stretched(x, width), stretched(y, height)


def _thinned(marks: Marks) -> list[Point]:
    """All marks, or evenly spaced ones of too many points."""
    every = 1
    if marks.kind == "points":
        every = max(1, math.ceil(len(marks.x) / _MOST_POINTS))
    return list(zip(marks.x[::every].tolist(), marks.y[::every].tolist(), strict=True))


def _path(kind: str, points: list[Point | None], origin: Point) -> str:
    if kind == "line":
        return _line(points)
    drawn = [point for point in points if point is not None]
    if kind == "points":
        # Strokes of no length: their round ends are the dots.
        return "".join(f"M{x:g} {y:g}h0" for x, y in drawn)
    return "".join(_arrow(origin, tip) for tip in drawn)


def _line(points: list[Point | None]) -> str:
    """A line that is broken where a value is missing."""
    pieces: list[str] = []
    pen_down = False
    for point in points:
        if point is not None:
            pieces.append(f"{'L' if pen_down else 'M'}{point[0]:g} {point[1]:g}")
        pen_down = point is not None
    return "".join(pieces)


def _arrow(start: Point, tip: Point) -> str:
    angle = math.atan2(tip[1] - start[1], tip[0] - start[0])
    head = min(_HEAD, math.dist(start, tip) / 2)
    sides = [
        (tip[0] - head * math.cos(angle + turn), tip[1] - head * math.sin(angle + turn))
        for turn in (0.42, -0.42)
    ]
    (x1, y1), (x2, y2) = sides
    return (
        f"M{start[0]:g} {start[1]:g}L{tip[0]:g} {tip[1]:g}"
        f"M{x1:.1f} {y1:.1f}L{tip[0]:g} {tip[1]:g}L{x2:.1f} {y2:.1f}"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """Neighbouring cells of one row that have the same shade."""

    x: float
    y: float
    width: float
    shade: float
    """From 0 to 1."""
    negative: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """A grid ready to draw."""

    left: float
    top: float
    width: float
    height: float
    cell_height: float
    tiles: tuple[Tile, ...]
    row_labels: tuple[tuple[float, str], ...]
    column_labels: tuple[tuple[float, str], ...]
    upright: bool
    """Whether column labels fit side by side; else they are turned."""
    bottom: float
    """Height of the whole drawing."""
    largest: str


def tiles(grid: Grid) -> Tiles:
    """Cells and labels of a grid. Shades are relative to its largest absolute value."""
    n_rows, n_columns = grid.values.shape
    wide = min(_CELL, _GRID_WIDTH / n_columns)
    high = min(_CELL, _GRID_HEIGHT / n_rows)
    left = min(120.0, _LETTER * max(map(len, grid.row_names)) + 8)
    width, height = wide * n_columns, high * n_rows
    row_labels = _labels(grid.row_names, high)
    column_labels = _labels(grid.column_names, wide)
    longest = max(len(label) for _, label in column_labels)
    room = width / max(1, len(column_labels))
    upright = longest * _LETTER < room
    largest = float(grid.values.abs().nan_to_num().max())
    return Tiles(
        left=left,
        top=4.0,
        width=width,
        height=height,
        cell_height=round(high, 2),
        tiles=tuple(_tiles(grid.values, wide, high, largest)),
        row_labels=row_labels,
        column_labels=column_labels,
        upright=upright,
        bottom=height + (20.0 if upright else min(100.0, longest * _LETTER + 12)),
        largest=tick_label(largest),
    )


def _tiles(values: Tensor, wide: float, high: float, largest: float) -> list[Tile]:
    steps = (values.nan_to_num() / (largest or 1.0) * _SHADES).round().int().tolist()
    found: list[Tile] = []
    for number, row in enumerate(steps):
        start = 0
        for column in range(1, len(row) + 1):
            if column < len(row) and row[column] == row[start]:
                continue
            if row[start]:
                found.append(
                    Tile(
                        x=round(start * wide, 2),
                        y=round(number * high, 2),
                        width=round((column - start) * wide, 2),
                        shade=abs(row[start]) / _SHADES,
                        negative=row[start] < 0,
                    )
                )
            start = column
    return found


def _labels(names: tuple[str, ...], size: float) -> tuple[tuple[float, str], ...]:
    every = math.ceil(len(names) / _MOST_LABELS)
    return tuple(
        (round((number + 0.5) * size, 2), name if len(name) <= 20 else f"{name[:19]}…")
        for number, name in enumerate(names)
        if number % every == 0
    )


def geometry(drawing: Drawing) -> Plot | Tiles:
    """Either kind of drawing, ready to draw."""
    return plot(drawing) if isinstance(drawing, Picture) else tiles(drawing)
