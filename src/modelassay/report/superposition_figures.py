"""Drawings of toy models, as standalone SVG."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from modelassay.observe.superposition.measures import FRACTIONS
from modelassay.observe.superposition.study import Drawing, Study
from modelassay.report.axes import Axis
from modelassay.report.superposition_frame import Frame, hexadecimal, mixed
from modelassay.report.svg import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    LINE,
    MUTED,
    RED,
    document,
    path,
    rectangle,
    shade,
    text,
)

WIDTH = 720.0
_HUES = (BLUE, AMBER, GREEN, RED, (122, 91, 160), (110, 110, 110))
_MOST_CELLS = 100  # rows or columns of a heat map; more would be smaller than a pixel


def draw(study: Study) -> str:
    """The drawing of a study, in the manner that it names."""
    return _DRAWN[study.drawing](study)


def _by_rank(index: int, count: int) -> str:
    """From blue, the most important feature, to amber."""
    share = index / max(1, count - 1)
    mixed = (round(b + (a - b) * share) for b, a in zip(BLUE, AMBER, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _circle(x: float, y: float, radius: float, fill: str, stroke: str = "none") -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}"/>'


def polygons(study: Study) -> str:
    """Columns of W in the plane, a panel a condition."""
    encoder = study.tensors["encoder"]
    set_size = study.settings.get("colour_by_set")
    size = 140.0
    columns = min(5, len(encoder))
    reach = max(1.2, float(encoder.norm(dim=1).max()) * 1.05)
    unit = (size / 2 - 10) / reach
    parts: list[str] = []
    for index, weights in enumerate(encoder):
        x = (index % columns + 0.5) * size
        y = (index // columns) * (size + 18) + size / 2 + 16
        parts.append(text(x, y - size / 2 - 2, study.labels[index], anchor="middle"))
        parts.append(_circle(x, y, unit, "none", LINE))
        count = weights.shape[1]
        for feature in range(count):
            colour = (
                hexadecimal(_HUES[feature // set_size % len(_HUES)])
                if set_size
                else _by_rank(feature, count)
            )
            dx, dy = (float(part) * unit for part in weights[:, feature])
            parts.append(path(f"M{x:g} {y:g}L{x + dx:.2f} {y - dy:.2f}", colour, width=2))
            parts.append(_circle(round(x + dx, 2), round(y - dy, 2), 3.5, colour))
    rows = math.ceil(len(encoder) / columns)
    return document(WIDTH, rows * (size + 18) + 8, parts, study.title)


def _heat(values: Tensor, left: float, top: float, width: float, height: float) -> list[str]:
    """Cells in blue (positive) and red (negative), relative to 1 or what is larger."""
    values = values[:_MOST_CELLS, :_MOST_CELLS]
    high, wide = height / values.shape[0], width / values.shape[1]
    largest = max(1.0, float(values.abs().max()))
    parts = [rectangle(left, top, width, height, shade(0, BLUE))]
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            strength = min(1.0, abs(value) / largest)
            if strength > 0.03:
                colour = shade(strength, BLUE if value > 0 else RED)
                x, y = left + column * wide, top + row * high
                parts.append(
                    f'<rect x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{high:.2f}" '
                    f'fill="{colour}"/>'
                )
    return parts


def strips(study: Study) -> str:
    """``W^T W``, the bias and the norms, a condition a column."""
    gram, bias = study.tensors["gram"], study.tensors["bias"]
    norm, crowded = study.tensors["norm"], study.tensors["interference"]
    count, n = len(gram), gram.shape[1]
    columns = min(4, count)
    size = 150.0
    cell = size / n
    parts: list[str] = []
    wide, high = size + 24, 2 * size + 34
    for index in range(count):
        left = (index % columns) * wide + 4
        top = (index // columns) * high + 18
        parts.append(text(left, top - 5, study.labels[index]))
        parts += _heat(gram[index], left, top, size, size)
        parts += _heat(bias[index][:, None], left + size + 3, top, 9, size)
        for feature in range(n):
            length = float(norm[index, feature]) / 1.5 * size
            share = min(1.0, float(crowded[index, feature]))
            colour = mixed(BLUE, RED, share)
            y = top + size + 6 + feature * cell
            tip = f"feature {feature}: norm {float(norm[index, feature]):.2f}, "
            tip += f"interference {float(crowded[index, feature]):.2f}"
            parts.append(rectangle(left, y, round(min(size, length), 2), cell * 0.82, colour, tip))
        x = left + size / 1.5
        parts.append(path(f"M{x:g} {top + size + 4:g}v{size + 4:g}", MUTED, width=0.6))
    rows = math.ceil(count / columns)
    return document(WIDTH, rows * high + 12, parts, study.title)


_SHOWN = ("own dimension", "tetrahedron", "triangle", "digon", "pentagon", "square antiprism")


def _levels(frame: Frame) -> list[str]:
    parts: list[str] = []
    right = frame.left + frame.width
    for name in _SHOWN:
        y = frame.at(frame.x.low, FRACTIONS[name])[1]
        parts.append(path(f"M{frame.left:g} {y:g}H{right:g}", LINE, width=1))
        # The two lowest labels would lie on one another.
        shift = 8 if name == "square antiprism" else 1
        parts.append(text(right + 6, y + shift, name, size=10, colour=MUTED))
    return parts


def dimensionality(study: Study) -> str:
    """D of every represented feature against 1 / density, with the line of m / |W|^2."""
    density = study.tensors["density"]
    sparse = (1 / density).tolist()
    frame = Frame(
        left=44, top=26, width=WIDTH - 180, height=320,
        x=Axis(low=0.9, high=max(sparse) * 1.15, log=True), y=Axis(low=0.0, high=1.05),
    )  # fmt: skip
    parts = frame.axes("1 / density", "dimensionality") + _levels(frame)
    shown = study.tensors["norm"] > 0.5
    for index, x in enumerate(sparse):
        values = study.tensors["dimensionality"][index][shown[index]].sort().values
        # Spread sideways by rank, so that equal values do not hide one another.
        spread = torch.linspace(-0.045, 0.045, max(1, len(values)))
        for value, off in zip(values.tolist(), spread.tolist(), strict=False):
            across, up = frame.at(x * 10**off, value)
            parts.append(_circle(across, up, 1.9, hexadecimal(BLUE)))
    line = study.tensors["dimensions_per_feature"].clamp(0, 1.05).tolist()
    steps = [frame.at(x, value) for x, value in zip(sparse, line, strict=True)]
    parts.append(path(_joined(steps), hexadecimal(AMBER)))
    parts.append(text(steps[0][0] + 8, steps[0][1] - 6, "m / |W|²", colour=hexadecimal(AMBER)))
    return document(WIDTH, 400, parts, study.title)


def _joined(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


_PHASES = ("ignored", "own dimension", "superposition", "own dimension, others superposed")
_PHASE_COLOURS = ((236, 233, 224), BLUE, RED, GREEN)


def phase(study: Study) -> str:
    """Theory and trained models: columns are importance, rows density."""
    predicted = study.tensors["predicted"]
    norm, crowded = study.tensors["norm"], study.tensors["interference"]
    pale = _PHASE_COLOURS[0]
    theory = [[hexadecimal(_PHASE_COLOURS[int(cell)]) for cell in row] for row in predicted]
    trained: list[list[str]] = []
    for sizes, shares in zip(norm.tolist(), crowded.tolist(), strict=True):
        kept = [
            tuple(round(b + (r - b) * share) for b, r in zip(BLUE, RED, strict=True))
            for share in shares
        ]
        trained.append(
            [
                mixed(pale, (c[0], c[1], c[2]), min(1.0, size))
                for c, size in zip(kept, sizes, strict=True)
            ]
        )
    parts: list[str] = []
    for number, cells in enumerate((theory, trained)):
        parts += _phase_panel(study, cells, 50 + number * 340, study.labels[number])
    used = sorted({int(cell) for cell in predicted.flatten()} | {0, 1, 2})
    x = 50.0
    for kind in used:
        parts.append(rectangle(x, 358, 12, 12, hexadecimal(_PHASE_COLOURS[kind])))
        parts.append(text(x + 18, 368, _PHASES[kind]))
        x += 40 + 6 * len(_PHASES[kind])
    return document(WIDTH, 382, parts, study.title)


def _phase_panel(study: Study, cells: list[list[str]], left: float, title: str) -> list[str]:
    density, importance = study.tensors["density"], study.tensors["importance"]
    frame = Frame(
        left=left, top=26, width=280, height=280,
        x=Axis(low=float(importance.min()), high=float(importance.max()), log=True),
        y=Axis(low=float(density.min()), high=float(density.max()), log=True),
    )  # fmt: skip
    high, wide = 280 / len(cells), 280 / len(cells[0])
    parts = [
        f'<rect x="{left + column * wide:.2f}" y="{26 + row * high:.2f}" '
        f'width="{wide + 0.3:.2f}" height="{high + 0.3:.2f}" fill="{colour}"/>'
        for row, line in enumerate(cells)
        for column, colour in enumerate(line)
    ]
    parts.append(text(left + 140, 14, title, anchor="middle", bold=True))
    return parts + frame.axes("importance of the feature", "density")


def curves(study: Study) -> str:
    """Lines over a common axis."""
    x, y = study.tensors["x"].float(), study.tensors["y"].float()
    logarithmic = study.settings["x_title"] != "step"
    top = float(y.max()) * 1.05
    levels = bool(study.settings["levels"])
    frame = Frame(
        left=44, top=26, width=WIDTH - 180, height=300,
        x=Axis(low=float(x.min()) if logarithmic else 0.0, high=float(x.max()), log=logarithmic),
        y=Axis(low=0.0, high=max(1.05, top)),
    )  # fmt: skip
    parts = frame.axes(study.settings["x_title"], study.settings["y_title"])
    if levels:
        parts += _levels(frame)
    colours = {label: _HUES[i % len(_HUES)] for i, label in enumerate(dict.fromkeys(study.labels))}
    many = len(colours) > len(_HUES)
    for index, (label, line) in enumerate(zip(study.labels, y.tolist(), strict=True)):
        points = [frame.at(a, b) for a, b in zip(x.tolist(), line, strict=True)]
        colour = _by_rank(index, len(y)) if many else hexadecimal(colours[label])
        parts.append(path(_joined(points), colour, width=1.4))
    if not many:
        for index, (label, colour) in enumerate(colours.items()):
            at = 150 + 140 * index
            parts.append(path(f"M{at:g} 12h16", hexadecimal(colour), width=2.4))
            parts.append(text(at + 22, 16, label, colour=INK))
    return document(WIDTH, 376, parts, study.title)


def neurons(study: Study) -> str:
    """Weights into neurons and, of untied models, out of them; columns are neurons."""
    encoder = study.tensors["encoder"]
    decoder = study.tensors.get("decoder")
    columns = min(4, len(encoder))
    wide = WIDTH / columns
    n = min(encoder.shape[2], _MOST_CELLS)
    width = min(wide - 16, 26.0 * encoder.shape[1])
    height = min(150.0, 26.0 * n)
    both = height * (1 if decoder is None else 2) + (0 if decoder is None else 8)
    parts: list[str] = []
    for index, weights in enumerate(encoder):
        left = (index % columns) * wide + 4
        top = (index // columns) * (both + 30) + 18
        parts.append(text(left, top - 5, study.labels[index]))
        parts += _heat(weights.T, left, top, width, height)
        if decoder is not None:
            parts += _heat(decoder[index], left, top + height + 8, width, height)
    rows = math.ceil(len(encoder) / columns)
    return document(WIDTH, rows * (both + 30) + 6, parts, study.title)


_DRAWN: dict[Drawing, Callable[[Study], str]] = {
    "polygons": polygons,
    "strips": strips,
    "dimensionality": dimensionality,
    "phase": phase,
    "curves": curves,
    "neurons": neurons,
}
