"""A Boolean circuit that a network was trained on: nothing is packed by hand.

Construction: a circuit as in T8.slots, of 16 bits, 10 first gates and 12 gates of these. A network
of two hidden layers of 64 ReLUs is trained (Adam, mean squared error) to give the twelve gates for
uniform bits; its last hidden layer, rotated by Q, is the audited site. An arm's reader is the
trained output layer, restricted to four of the gates; four gates are left in no arm's reader,
though they were trained for.

- Model's truth of an arm: the four gates that it reads: the functions that the outputs were
  trained to be, right to the accuracy among the known numbers. Covectors: the output layer's rows.
- Activations' truth: the bundles of two bits that come together in the data.
- Interventional: uniform independent bits.

What the hidden layers make of the first gates is the training's choice, so no hop is scored here.

Prediction: as for T8.slots, V near 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.boolean_circuits import (
    Circuit,
    affine,
    all_bits,
    fused,
    random_circuit,
    uniform_bits,
)
from modelassay.testbeds.boolean_data import Bundles
from modelassay.testbeds.boolean_scores import gate_scores
from modelassay.testbeds.found import found_grid
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

BUNDLES = Bundles(n_bundles=8, together=0.12, alone=0.02)
N_FIRST, N_GATES, N_READ, N_HIDDEN = 10, 12, 4, 64
STATED_ACCURACY = 0.99
"""Least share of right gates of the trained network, over all inputs and gates (ours)."""
_STEPS, _BATCH, _RATE = 1000, 256, 5e-3
_N_DATA, _N_INTERVENTIONAL = 20_000, 6000
_SIZE = Size(width=64, k=4, tokens=400_000, batch_tokens=512)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedCircuit:
    """A circuit and a network that was trained on it."""

    circuit: Circuit
    network: nn.Sequential
    """Bits to gates: three affine maps with ReLUs between them."""

    def gates(self, bits: Float[Tensor, "input bit"]) -> Float[Tensor, "input gate"]:
        """The gates that it was trained for, by logic."""
        return self.circuit.evaluate(bits)[:, list(self.circuit.wires_of_layer(1))]

    def accuracy(self) -> float:
        """Share of gates that the network gets right, over all inputs."""
        bits = all_bits(self.circuit.n_bits)
        right = (self.network(bits) > 0.5) == (self.gates(bits) > 0.5)
        return float(right.float().mean())


def train(circuit: Circuit, generator: torch.Generator) -> TrainedCircuit:
    """Train a network on a circuit, from Kaiming-normal weights, to a learning rate of zero."""
    widths = (circuit.n_bits, N_HIDDEN, N_HIDDEN, len(circuit.layers[1]))
    maps = [
        affine(torch.randn(after, before, generator=generator) * (2 / before) ** 0.5)
        for before, after in pairwise(widths)
    ]
    network = nn.Sequential(maps[0], nn.ReLU(), maps[1], nn.ReLU(), maps[2])
    trained = TrainedCircuit(circuit=circuit, network=network)
    optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, _STEPS)
    for _ in range(_STEPS):
        bits = uniform_bits(_BATCH, circuit.n_bits, generator)
        loss = (network(bits) - trained.gates(bits)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.requires_grad_(False)
    return trained


def build(seed: int) -> Testbed:
    """T8.trained."""

    def generator(purpose: str) -> torch.Generator:
        return derived(seed, "T8.trained", purpose)

    circuit = random_circuit(
        BUNDLES.n_bits, (N_FIRST, N_GATES), BUNDLES.groups, generator("circuit")
    )
    trained = train(circuit, generator("training"))
    first, second, last = (trained.network[i] for i in (0, 2, 4))
    assert isinstance(last, nn.Linear)
    rotation = torch.linalg.qr(torch.randn(N_HIDDEN, N_HIDDEN, generator=generator("rotation")))[0]
    trunk = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), affine(rotation))
    output = fused(affine(rotation.T), last)
    order = torch.randperm(N_GATES, generator=generator("reads"))
    data = BUNDLES.draw(_N_DATA, generator("data"))
    interventional = uniform_bits(_N_INTERVENTIONAL, BUNDLES.n_bits, generator("interventional"))

    def truth(chosen: Tensor) -> Truth:
        kinds = [circuit.layers[1][i].kind.upper() for i in chosen.tolist()]
        return Truth(
            names=tuple(f"{k} {i}" for k, i in zip(kinds, chosen.tolist(), strict=True)),
            scalars=lambda bits: trained.gates(bits)[:, chosen],
            covectors=output.weight[chosen].detach(),
        )

    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(
                f"T8.trained {name}", trunk, affine(output.weight[chosen], output.bias[chosen])
            ),
            data=data,
            interventional=interventional,
            activations_truth=BUNDLES.truth(),
            model_truth=truth(chosen),
        )
        for name, chosen in (("gates A", order[:N_READ]), ("gates B", order[N_READ : 2 * N_READ]))
    )
    return Testbed(
        name="T8.trained",
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=gate_scores,
        known=lambda: _known(trained),
        draw=lambda decompositions: found_grid(
            "Trained gates and bundles",
            arms[0],
            {
                "gates that are read": arms[0].model_truth,
                "gates that are not": truth(order[N_READ:]),
                "bundles of the data": arms[0].activations_truth,
            },
            decompositions,
        ),
    )


def _known(trained: TrainedCircuit) -> Sequence[KnownNumber]:
    return (
        KnownNumber(
            name="share of right gates of the trained network, all 65,536 inputs",
            expected=1.0,
            tolerance=1 - STATED_ACCURACY,
            measured=trained.accuracy(),
            source="stated accuracy of this training (ours)",
        ),
    )


KIND = TestbedKind(
    name="T8.trained",
    title="Boolean circuit, trained",
    claim="As T8.slots in a network that was trained on the circuit: what a dictionary finds is "
    "made by the data, what is read was made by training.",
    build=build,
    references=("chughtai2025",),
)
