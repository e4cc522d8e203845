"""Boolean circuits of two-input gates, and the ReLU gadgets that compute them exactly.

With bits in {0, 1} one neuron ``h = ReLU(a + b - 1)`` makes each gate a linear read::

    AND = h        OR = a + b - h        XOR = a + b - 2 h
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.testbeds.scores import correlation

GateKind = Literal["and", "or", "xor"]
# Value of a gate: c_sum * (a + b) + c_neuron * ReLU(a + b - 1).
_GADGETS: dict[GateKind, tuple[float, float]] = {"and": (0, 1), "or": (1, -1), "xor": (1, -2)}
_ON = (0.15, 0.75)  # share of all inputs on which a drawn gate is on (ours)
_ALIKE = 0.7  # a drawn gate correlates less than this with every earlier wire (ours)
_CHECKED = 4096  # uniform inputs on which drawn gates are looked at (ours)
_DRAWS = 2000  # tries for one gate (ours)


class Gate(NamedTuple):
    """A function of two earlier wires."""

    kind: GateKind
    first: int
    second: int

    def of(self, wires: Float[Tensor, "input wire"]) -> Float[Tensor, " input"]:
        """Its value, by logic."""
        one, other = wires[:, self.first] > 0.5, wires[:, self.second] > 0.5
        if self.kind == "and":
            return (one & other).float()
        return ((one | other) if self.kind == "or" else (one ^ other)).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class Circuit:
    """Layers of gates. Wires are numbered from the input bits on, layer after layer."""

    n_bits: int
    layers: tuple[tuple[Gate, ...], ...]

    def __post_init__(self) -> None:
        known = self.n_bits
        for layer in self.layers:
            for gate in layer:
                if not (0 <= gate.first < known and 0 <= gate.second < known):
                    raise ValueRangeError(
                        f"A gate must read wires of earlier layers, 0 to {known - 1}; got {gate}. "
                        "Wires are numbered from the bits on, layer after layer."
                    )
            known += len(layer)

    def wires_of_layer(self, layer: int) -> range:
        """Numbers of the wires that a layer of gates writes."""
        start = self.n_bits + sum(len(each) for each in self.layers[:layer])
        return range(start, start + len(self.layers[layer]))

    def evaluate(self, bits: Float[Tensor, "input bit"]) -> Float[Tensor, "input wire"]:
        """Every wire on every input, by logic; entries above 1/2 are on.

        Raises:
            ShapeError: if there is not one column per bit.
        """
        if bits.ndim != 2 or bits.shape[1] != self.n_bits:
            raise ShapeError(
                f"bits must be [input, {self.n_bits}]; got {list(bits.shape)}. "
                "Pass one column per bit."
            )
        wires = (bits > 0.5).float()
        for layer in self.layers:
            wires = torch.cat([wires, torch.stack([gate.of(wires) for gate in layer], 1)], 1)
        return wires


def all_bits(n_bits: int) -> Float[Tensor, "input bit"]:
    """All 2^n settings of n bits."""
    numbers = torch.arange(2**n_bits)[:, None]
    return (numbers >> torch.arange(n_bits) & 1).float()


def uniform_bits(count: int, n_bits: int, generator: torch.Generator) -> Float[Tensor, "input bit"]:
    """Bits that are independent and on half of the time."""
    return torch.randint(2, (count, n_bits), generator=generator).float()


def random_circuit(
    n_bits: int, widths: Sequence[int], groups: Int[Tensor, " bit"], generator: torch.Generator
) -> Circuit:
    """A circuit whose gates are neither nearly constant nor nearly copies of each other.

    Every gate reads two wires of the layer below; those of the first layer read bits of different
    groups, so that no gate lives within a group.

    Args:
        n_bits: of the input.
        widths: gates of every layer.
        groups: which group each bit belongs to.
        generator: for kinds and wires.

    Raises:
        ValueRangeError: if no further gate is found that fulfils this.
    """
    wires = uniform_bits(_CHECKED, n_bits, generator)
    layers: list[tuple[Gate, ...]] = []
    below = range(n_bits)
    for width in widths:
        gates: list[Gate] = []
        for _ in range(width):
            gate = _draw_gate(wires, below, groups, generator)
            gates.append(gate)
            wires = torch.cat([wires, gate.of(wires)[:, None]], 1)
        layers.append(tuple(gates))
        below = range(wires.shape[1] - width, wires.shape[1])
    return Circuit(n_bits=n_bits, layers=tuple(layers))


def random_gates(n_wires: int, generator: torch.Generator) -> tuple[Gate, ...]:
    """As many gates of random kinds as there are wires, over neighbours on a ring of the wires."""
    kinds = torch.randint(len(_GADGETS), (n_wires,), generator=generator).tolist()
    return tuple(
        Gate(tuple(_GADGETS)[kind], wire, (wire + 1) % n_wires) for wire, kind in enumerate(kinds)
    )


def _draw_gate(wires: Tensor, below: range, groups: Tensor, generator: torch.Generator) -> Gate:
    for _ in range(_DRAWS):
        kind = tuple(_GADGETS)[int(torch.randint(len(_GADGETS), (), generator=generator))]
        order = torch.randperm(len(below), generator=generator)[:2]
        first, second = (below[int(i)] for i in order)
        if second < len(groups) and groups[first] == groups[second]:
            continue
        gate = Gate(kind, first, second)
        value = gate.of(wires)
        alike = float(correlation(value[:, None], wires).max())
        if _ON[0] <= float(value.mean()) <= _ON[1] and alike < _ALIKE:
            return gate
    raise ValueRangeError(
        f"A circuit must have gates that differ; got {_DRAWS} draws from {len(below)} wires "
        "without another one. Use more bits, or fewer gates."
    )


def gadget_layer(gates: Sequence[Gate], n_wires: int, *, keep: bool) -> tuple[nn.Linear, nn.Linear]:
    """The two affine maps around a ReLU that compute a layer of gates.

    The first maps wires to ``(wires, a + b - 1 of every gate)``, the second to the gates' values,
    behind the wires themselves if `keep`. Wires are 0 or 1, so the ReLU lets them pass.

    Args:
        gates: of the layer.
        n_wires: wires that it may read.
        keep: whether the wires are written as well.
    """
    inner = torch.zeros(len(gates), n_wires)
    outer = torch.zeros(len(gates), n_wires + len(gates))
    for row, gate in enumerate(gates):
        of_sum, of_neuron = _GADGETS[gate.kind]
        for wire in (gate.first, gate.second):
            inner[row, wire] += 1
            outer[row, wire] += of_sum
        outer[row, n_wires + row] = of_neuron
    passing = torch.eye(n_wires, n_wires + len(gates))
    bias = torch.cat([torch.zeros(n_wires), -torch.ones(len(gates))])
    first = affine(torch.cat([torch.eye(n_wires), inner]), bias)
    return first, affine(torch.cat([passing, outer]) if keep else outer)


def affine(
    weight: Float[Tensor, "output input"], bias: Float[Tensor, " output"] | None = None
) -> nn.Linear:
    """A linear layer with the given weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return layer


def fused(*maps: nn.Linear) -> nn.Linear:
    """One affine map that does what the given ones do one after the other."""
    weight, bias = maps[0].weight.double(), maps[0].bias.double()
    for layer in maps[1:]:
        step = layer.weight.double()
        weight, bias = step @ weight, step @ bias + layer.bias.double()
    return affine(weight.float(), bias.float())
