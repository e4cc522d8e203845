"""The layer of T4b, in which circuits share neurons, and scores that look at circuits."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.testbeds.hinges import Hinges, two_sided
from modelassay.testbeds.scores import graph_terms

HINGES = two_sided()
"""What every circuit wants of its neurons."""
_ROWS = 4096  # inputs whose circuits are drawn at once (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """How many circuits share how many neurons."""

    n_neurons: int
    n_circuits: int
    active: int
    """Circuits that are on in each input."""
    scored: int
    """Circuits that truths and scores are about: the first ones."""
    n_data: int
    n_interventional: int

    def __post_init__(self) -> None:
        if self.n_neurons < len(HINGES):
            raise ValueRangeError(
                f"There must be a neuron for each of a circuit's {len(HINGES)} slots; got "
                f"{self.n_neurons}. Give more neurons."
            )
        for name in ("active", "scored"):
            if not 1 <= getattr(self, name) <= self.n_circuits:
                raise ValueRangeError(
                    f"{name} must be between 1 and the number of circuits, {self.n_circuits}; got "
                    f"{getattr(self, name)}. Choose fewer."
                )


class PackedCircuits(nn.Module):
    """Neurons that belong to several circuits each; inputs list the active circuits and their x."""

    slots: Int[Tensor, "circuit hinge"]
    signs: Float[Tensor, " hinge"]
    knots: Float[Tensor, " hinge"]

    def __init__(
        self, slots: Int[Tensor, "circuit hinge"], n_neurons: int, hinges: Hinges = HINGES
    ) -> None:
        super().__init__()
        self.n_neurons = n_neurons
        self.register_buffer("slots", slots)
        self.register_buffer("signs", hinges.signs.float())
        self.register_buffer("knots", hinges.knots.float())

    def forward(self, inputs: Float[Tensor, "input active 2"]) -> Float[Tensor, "input neuron"]:
        """The neurons; of each pair, the first entry is a circuit's number, the second its x."""
        slots = self.slots[inputs[..., 0].long()]
        wanted = self.signs * inputs[..., 1:] - self.knots
        silent = inputs.new_zeros(len(inputs), self.n_neurons)
        return silent.scatter_add(1, slots.flatten(1), wanted.flatten(1)).clamp(min=0)

    def spread(
        self, vector: Float[Tensor, " hinge"], circuits: int
    ) -> Float[Tensor, "circuit neuron"]:
        """A vector over slots, put on the neurons of each of the first circuits."""
        rows = vector.new_zeros(circuits, self.n_neurons)
        return rows.scatter(1, self.slots[:circuits], vector.expand(circuits, -1))


def packed_circuits(packing: Packing, seed: int) -> PackedCircuits:
    """Every circuit on neurons of its own choice."""
    generator = derived(seed, "T4b", "slots")
    slots = [
        torch.randperm(packing.n_neurons, generator=generator)[: len(HINGES)]
        for _ in range(packing.n_circuits)
    ]
    return PackedCircuits(torch.stack(slots), packing.n_neurons)


def draw_inputs(
    packing: Packing, count: int, generator: torch.Generator
) -> Float[Tensor, "input active 2"]:
    """Different circuits at random, each with x uniform on [-1, 1]."""
    circuits = torch.cat(
        [
            torch.rand(len(rows), packing.n_circuits, generator=generator)
            .topk(packing.active, dim=1)
            .indices
            for rows in torch.arange(count).split(_ROWS)
        ]
    )
    x = 2 * torch.rand(circuits.shape, generator=generator) - 1
    return torch.stack([circuits.float(), x], 2)


def of_circuits(
    inputs: Float[Tensor, "input active 2"],
    values: Float[Tensor, "input active"],
    circuits: int,
) -> Float[Tensor, "input circuit"]:
    """One column for each of the first circuits: its value where it is active, else 0."""
    columns = inputs[..., 0].long().clamp(max=circuits)  # all others share a column that is dropped
    return values.new_zeros(len(inputs), circuits + 1).scatter(1, columns, values)[:, :circuits]


def main_direction(hinges: Hinges, x: Tensor) -> Float[Tensor, " hinge"]:
    """The first principal component of a circuit's own activations."""
    return torch.linalg.eigh(hinges(x).T.cov(correction=0))[1][:, -1]


def model_score(
    directions: Float[Tensor, "latent neuron"], covectors: Float[Tensor, "circuit neuron"]
) -> float:
    """``mean_t max_i |cos(d_i, w_t)|``."""
    unit = torch.nn.functional.normalize
    return float((unit(directions, dim=1) @ unit(covectors, dim=1).T).abs().amax(0).mean())


def activation_score(directions: Float[Tensor, "latent neuron"], trunk: PackedCircuits) -> float:
    """``mean_i max_t ||P_t d_i||`` for unit d_i, where P_t projects onto the neurons of t."""
    owned = trunk.spread(torch.ones_like(trunk.signs), len(trunk.slots))
    squares = torch.nn.functional.normalize(directions, dim=1).square()
    return float((squares @ owned.T).amax(1).clamp(max=1).sqrt().mean())


def effective_latents(
    values: Float[Tensor, "input latent"],
    directions: Float[Tensor, "latent neuron"],
    covectors: Float[Tensor, "circuit neuron"],
    active: Tensor,
) -> float:
    """Mean of N_eff over the circuits that some latent reaches; NaN if none is reached."""
    terms = graph_terms(values, directions, covectors, active)
    return float((1 / terms[terms > 0]).mean())
