"""Drawings of circuits, as standalone SVG: kernels on the ways into a unit, and tuning curves."""

import base64
import math

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.circuits.connections import Connection
from modelassay.observe.circuits.tuning import Tuning
from modelassay.observe.circuits.unit import UnitCircuit
from modelassay.observe.visualize.png import to_png
from modelassay.report.axes import number
from modelassay.report.svg import AMBER, BLUE, INK, LINE, MUTED, document, path, text

_ICON, _KERNEL, _UNIT = 56.0, 56.0, 112.0
_ROW = 68.0
_LEFT, _MIDDLE, _RIGHT = 64.0, 250.0, 460.0  # left edges of icons, kernels and the unit
GRAPH_WIDTH = 620.0
_POLAR = 132.0  # width of one tuning curve


def signed(kernel: Float[Tensor, "row column"], largest: float) -> Float[Tensor, "3 row column"]:
    """A kernel in colours: amber above 0, blue below, white at 0."""
    share = (kernel / (largest or 1.0)).clamp(-1, 1)
    amber, blue = (torch.tensor(colour)[:, None, None] / 255 for colour in (AMBER, BLUE))
    colour = torch.where(share >= 0, amber, blue)
    return 1 - share.abs() * (1 - colour)


def enlarged(image: Float[Tensor, "3 h w"], side: int) -> Float[Tensor, "3 _height _width"]:
    """Each pixel as a square, so that the picture is about `side` wide; never made smaller."""
    factor = max(1, side // max(image.shape[1:]))
    return image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def kernel_png(kernel: Float[Tensor, "row column"], largest: float, side: int = 64) -> bytes:
    """A signed kernel as a picture."""
    return to_png(enlarged(signed(kernel, largest), side))


def graph(circuit: UnitCircuit) -> str:
    """A unit at the right, its strongest inputs at the left, and their kernels between."""
    inputs = [*circuit.excitatory, *circuit.inhibitory]
    height = max(len(inputs) * _ROW, _UNIT) + 64
    middle = 40 + (height - 64) / 2
    parts = [
        text(_LEFT, 20, f"{circuit.source}: strongest inputs", colour=MUTED),
        text(_MIDDLE, 20, "weights", colour=MUTED),
        text(_RIGHT, 20, circuit.target, colour=MUTED),
    ]
    largest = max((float(each.kernel.abs().max()) for each in inputs), default=1.0)
    strongest = max((each.strength for each in inputs), default=1.0)
    for row, each in enumerate(inputs):
        y = 40 + (row + 0.5) * (height - 64) / len(inputs)
        parts += _way(circuit, each, y, middle, largest, strongest)
    parts.append(_image(circuit.icon, _RIGHT, middle - _UNIT / 2, _UNIT))
    parts.append(
        text(_RIGHT + _UNIT / 2, middle + _UNIT / 2 + 16, f"channel {circuit.channel}",
             anchor="middle", bold=True)
    )  # fmt: skip
    parts += _key(height - 10, largest)
    title = f"{circuit.target} channel {circuit.channel} from {circuit.source}"
    return document(GRAPH_WIDTH, height, parts, title)


def _way(
    circuit: UnitCircuit, each: Connection, y: float, middle: float, largest: float,
    strongest: float,
) -> list[str]:  # fmt: skip
    colour = _hex(AMBER if each.excitatory else BLUE)
    width = 1 + 4 * each.strength / (strongest or 1.0)
    start, end = _MIDDLE + _KERNEL, _RIGHT - 4
    bend = (start + end) / 2
    parts = [
        path(f"M{_LEFT + _ICON:g} {y:g}H{_MIDDLE:g}", colour, width=width),
        path(f"M{start:g} {y:g}C{bend:g} {y:g} {bend:g} {middle:g} {end:g} {middle:g}", colour,
             width=width),
        _image(signed(each.kernel, largest), _MIDDLE, y - _KERNEL / 2, _KERNEL),
        text(_LEFT - 8, y + 4, str(each.channel), anchor="end"),
        text(_LEFT + _ICON + 12, y - 8, f"{each.share:.0%}", size=10, colour=MUTED),
    ]  # fmt: skip
    if each.channel in circuit.icons:
        parts.append(_image(circuit.icons[each.channel], _LEFT, y - _ICON / 2, _ICON))
    return parts


def _key(y: float, largest: float) -> list[str]:
    shown = number(largest, 2)
    return [
        text(_LEFT, y, "excites", colour=_hex(AMBER)),
        text(_LEFT + 52, y, "inhibits", colour=_hex(BLUE)),
        text(_MIDDLE, y, f"full colour: ±{shown}", size=10, colour=MUTED),
        text(_RIGHT, y, "%: share of squared weights", size=10, colour=MUTED),
    ]


def polar(tuned: Tuning, channels: list[int], title: str, columns: int = 6) -> str:
    """Tuning curves around a circle, each scaled to its largest response."""
    rows = -(-len(channels) // columns)
    parts: list[str] = []
    for place, channel in enumerate(channels):
        left, top = place % columns * _POLAR, place // columns * (_POLAR + 30)
        parts += _polar_one(tuned, channel, left + _POLAR / 2, top + _POLAR / 2)
    width = min(columns, len(channels)) * _POLAR
    return document(width, rows * (_POLAR + 30), parts, title)


def _polar_one(tuned: Tuning, channel: int, x: float, y: float) -> list[str]:
    assert tuned.axis.period is not None
    curve = tuned.curves[channel].clamp_min(0)
    radius = _POLAR / 2 - 14
    repeats = round(2 * math.pi / tuned.axis.period)
    lengths = (curve / curve.max().clamp_min(1e-12) * radius).tolist() * repeats
    angles = [2 * math.pi * index / len(lengths) for index in range(len(lengths))]
    points = [
        f"{x + length * math.cos(angle):.1f} {y - length * math.sin(angle):.1f}"
        for length, angle in zip(lengths, angles, strict=True)
    ]
    rings = [
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius * share:g}" fill="none" stroke="{LINE}"/>'
        for share in (0.5, 1.0)
    ]
    below = y + _POLAR / 2
    chance = tuned.expected[channel]
    beyond = "" if bool(chance.isnan()) else f", chance {float(chance):.2f}"
    return [
        *rings,
        path(f"M{'L'.join(points)}Z", _hex(AMBER), fill="rgba(214,138,0,0.25)"),
        text(x, below - 2, str(channel), anchor="middle", bold=True),
        text(x, below + 13, f"{float(tuned.selectivity[channel]):.2f}{beyond}", size=10,
             anchor="middle", colour=INK),
    ]  # fmt: skip


def _image(image: Tensor, x: float, y: float, side: float) -> str:
    code = base64.b64encode(to_png(enlarged(image, int(side)))).decode()
    return (
        f'<image x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{code}"/>'
        f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" fill="none" '
        f'stroke="{LINE}"/>'
    )


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
