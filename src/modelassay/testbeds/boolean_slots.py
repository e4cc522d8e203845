"""A Boolean circuit with one slot per wire, on bits that come in bundles.

Construction: 24 sparse bits; 12 first gates, each of two bits; 16 middle gates, each of two first
gates. The trunk is the exact ReLU network of these two layers,

    z = Q (2 bits, first gates, middle gates)          Q a random rotation of R^52,

and an arm's reader takes four middle gates from their slots and computes four output gates from
them, exactly, by one more ReLU layer. The arms read different middle gates; eight are read by
none.

- Model's truth of an arm: the four middle gates that it reads; covectors ``Q e_slot``.
- Activations' truth: on the data the bits come in twelve bundles of two (10 % of the inputs each;
  2 % a bit alone). Whether both bits of a bundle are on is a joint state that the data made; no
  gate reads two bits of one bundle.
- Interventional: uniform independent bits.

Prediction: dictionaries of activations find the bundles, in all arms the same; V near 0.

What is not here: that a transcoder across layers skips the middle gates (Lange et al. 2026) is a
claim about graphs over several layers. At one site one can only ask whether the middle gates have
latents of their own, `hops_kept`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.boolean_circuits import (
    Circuit,
    Gate,
    affine,
    fused,
    gadget_layer,
    random_circuit,
    random_gates,
    uniform_bits,
)
from modelassay.testbeds.boolean_data import Bundles
from modelassay.testbeds.boolean_scores import gate_scores
from modelassay.testbeds.found import found_grid
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Drawing
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

BUNDLES = Bundles(n_bundles=12, together=0.1, alone=0.02)
N_BITS, N_FIRST, N_MIDDLE, N_READ = BUNDLES.n_bits, 12, 16, 4
_BIT_SIZE = 2.0  # of a bit in the site, a gate has 1: the input is what one sees first (ours)
_N_DATA, _N_INTERVENTIONAL = 20_000, 6000
_SIZE = Size(width=64, k=4, tokens=400_000, batch_tokens=512)


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotCircuit:
    """The circuit, where its wires stand, and which of them are read."""

    circuit: Circuit
    rotation: Float[Tensor, "slot slot"]
    """Column s is the direction in which slot s stands."""
    reads: tuple[tuple[int, ...], ...]
    """Wires of the middle gates that each arm reads."""
    outputs: tuple[tuple[Gate, ...], ...]
    """Of each arm; their wires are numbers among those that it reads."""


def draw_circuit(seed: int) -> SlotCircuit:
    """The construction of a seed."""
    circuit = random_circuit(
        N_BITS, (N_FIRST, N_MIDDLE), BUNDLES.groups, derived(seed, "T8.slots", "circuit")
    )
    middle = circuit.wires_of_layer(1)
    order = torch.randperm(N_MIDDLE, generator=derived(seed, "T8.slots", "reads")).tolist()
    n_slots = middle.stop
    normal = torch.randn(n_slots, n_slots, generator=derived(seed, "T8.slots", "rotation"))
    return SlotCircuit(
        circuit=circuit,
        rotation=torch.linalg.qr(normal)[0],
        reads=tuple(
            tuple(middle[i] for i in order[start : start + N_READ]) for start in (0, N_READ)
        ),
        outputs=tuple(
            random_gates(N_READ, derived(seed, "T8.slots", "outputs", arm)) for arm in (0, 1)
        ),
    )


def exact_trunk(construction: SlotCircuit) -> nn.Sequential:
    """The ReLU network from bits to rotated slots."""
    first, middle = construction.circuit.layers
    first_in, first_out = gadget_layer(first, N_BITS, keep=True)
    middle_in, middle_out = gadget_layer(middle, N_BITS + N_FIRST, keep=True)
    sizes = torch.ones(len(construction.rotation))
    sizes[:N_BITS] = _BIT_SIZE
    return nn.Sequential(
        first_in,
        nn.ReLU(),
        fused(first_out, middle_in),
        nn.ReLU(),
        fused(middle_out, affine(construction.rotation * sizes)),
    )


def testbed_on(name: str, seed: int, construction: SlotCircuit, trunk: nn.Module) -> Testbed:
    """The two arms on a trunk that writes the rotated slots, or pretends to."""
    data = BUNDLES.draw(_N_DATA, derived(seed, "T8.slots", "data"))
    interventional = uniform_bits(
        _N_INTERVENTIONAL, N_BITS, derived(seed, "T8.slots", "interventional")
    )
    arms = tuple(
        Arm(
            name=arm_name,
            subject=arm_subject(f"{name} {arm_name}", trunk, _reader(construction, number)),
            data=data,
            interventional=interventional,
            activations_truth=BUNDLES.truth(),
            model_truth=_gates_truth(construction, construction.reads[number]),
        )
        for number, arm_name in enumerate(("gates A", "gates B"))
    )
    outputs = dict(zip((arm.name for arm in arms), construction.outputs, strict=True))
    return Testbed(
        name=name,
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=lambda arm, decomposition: gate_scores(arm, decomposition, outputs[arm.name]),
        known=lambda: _known(construction, arms),
        draw=lambda decompositions: _draw(construction, arms[0], decompositions),
    )


def build(seed: int) -> Testbed:
    """T8.slots."""
    construction = draw_circuit(seed)
    return testbed_on("T8.slots", seed, construction, exact_trunk(construction))


def _reader(construction: SlotCircuit, number: int) -> nn.Sequential:
    read = affine(construction.rotation.T[list(construction.reads[number])])
    inner, outer = gadget_layer(construction.outputs[number], N_READ, keep=False)
    return nn.Sequential(fused(read, inner), nn.ReLU(), outer)


def _gates_truth(construction: SlotCircuit, wires: Sequence[int]) -> Truth:
    """Some wires of the circuit and the directions of their slots."""
    kinds = [gate.kind for layer in construction.circuit.layers for gate in layer]
    return Truth(
        names=tuple(f"{kinds[wire - N_BITS].upper()} on wire {wire}" for wire in wires),
        scalars=lambda bits: construction.circuit.evaluate(bits)[:, list(wires)],
        covectors=construction.rotation.T[list(wires)],
    )


def _known(construction: SlotCircuit, arms: Sequence[Arm]) -> Sequence[KnownNumber]:
    found: list[KnownNumber] = []
    for number, arm in enumerate(arms):
        bits = arm.interventional
        read = construction.circuit.evaluate(bits)[:, list(construction.reads[number])]
        logic = torch.stack([gate.of(read) for gate in construction.outputs[number]], 1)
        found.append(
            KnownNumber(
                name=f"largest error of the outputs of {arm.name!r} on uniform bits",
                expected=0.0,
                tolerance=1e-4,
                measured=float((arm.output(inputs=bits) - logic).abs().max()),
                source="derived: the gadgets AND, OR and XOR are exact on bits",
            )
        )
    return found


def _draw(
    construction: SlotCircuit, arm: Arm, decompositions: Mapping[str, Decomposition]
) -> Sequence[Drawing]:
    unread = sorted(set(construction.circuit.wires_of_layer(1)) - set(construction.reads[0]))
    truths = {
        "middle gates that are read": arm.model_truth,
        "middle gates that are not": _gates_truth(construction, unread),
        "bundles of the data": arm.activations_truth,
    }
    return found_grid("Gates and bundles", arm, truths, decompositions)


KIND = TestbedKind(
    name="T8.slots",
    title="Boolean circuit, one slot per wire",
    claim="A dictionary of activations finds the joint states that the data made of a circuit's "
    "input bits, not the gates that the rest of the model reads.",
    build=build,
    references=("chughtai2025",),
)
