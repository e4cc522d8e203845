"""Universal AND: every AND of two sparse bits, in fewer neurons than there are ANDs.

Construction: neuron i reads a random set S_i of the 24 bits (each with chance 0.3),

    h_i = ReLU(sum of the bits in S_i  -  1),        z = Q h,    128 neurons for 276 ANDs,

and the AND of bits j and k is read by the linear map r_jk of z that is best on sparse independent
bits (ridge regression). With only j and k on, each neuron that has both in its set is 1, and with
a single bit on all are 0; further bits add interference, most of which the reader's first layer
removes: it clips r from [0.2, 0.4] to [0, 1]. Its second layer computes OR and XOR gates of the
corrected ANDs. The arms read six ANDs each, of different pairs; all other ANDs are in the
superposition as well and are read by none.

- Model's truth of an arm: the six ANDs that it reads; covectors ``Q`` times the read-out above.
- Activations' truth: in the data the bits come in twelve bundles of two. The ANDs of bundles are
  joint states that the data made; no arm reads one of them.
- Interventional: independent bits, each on in 10 % of the inputs.

Prediction: dictionaries of activations find the bundles, whatever is read; V near 0.

Source: Haenni, Mendel, Vaintrob and Chan 2024 (universal AND); probabilities and levels are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, activations_at, arm_subject
from modelassay.testbeds.boolean_circuits import Gate, affine, fused, gadget_layer
from modelassay.testbeds.boolean_data import Bundles
from modelassay.testbeds.boolean_scores import gate_scores
from modelassay.testbeds.found import found_grid
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Drawing
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

BUNDLES = Bundles(n_bundles=12, together=0.1, alone=0.02)
N_NEURONS, N_READ = 128, 6
STATED_ERROR_RATE = 0.002
"""Of the corrected ANDs on independent bits: wrong ones among all (ours)."""
_CONNECTED = 0.3
_LEVELS = (0.2, 0.4)
_INDEPENDENT = 0.1
_RIDGE = 1e-4
_N_DATA, _N_INTERVENTIONAL = 20_000, 8192
_SIZE = Size(width=256, k=8, tokens=400_000, batch_tokens=512)

Pair = tuple[int, int]
PAIRS: tuple[Pair, ...] = tuple(combinations(range(BUNDLES.n_bits), 2))
"""All pairs of bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UniversalAnd:
    """A layer that holds all ANDs of two bits in superposition, and what is read from it."""

    sets: Bool[Tensor, "neuron bit"]
    """Which bits each neuron reads."""
    weights: Float[Tensor, "pair neuron"]
    offsets: Float[Tensor, " pair"]
    """Of the read-out of every AND from the neurons, in the order of `PAIRS`."""
    rotation: Float[Tensor, "neuron neuron"]
    reads: tuple[tuple[Pair, ...], ...]
    """Pairs of bits whose ANDs each arm reads."""
    outputs: tuple[tuple[Gate, ...], ...]
    """Of each arm; their wires are numbers among the ANDs that it reads."""

    def corrected(self, pairs: Sequence[Pair]) -> tuple[nn.Linear, nn.Linear]:
        """The affine maps around the ReLU that clips r_jk: rotated neurons to ANDs."""
        low, high = _LEVELS
        chosen = [PAIRS.index(pair) for pair in pairs]
        rows, offsets = self.weights[chosen] @ self.rotation.T, self.offsets[chosen]
        clip_in = affine(torch.cat([rows, rows]), torch.cat([offsets - low, offsets - high]))
        step = torch.eye(len(pairs)) / (high - low)
        return clip_in, affine(torch.cat([step, -step], 1))


def hidden(
    sets: Bool[Tensor, "neuron bit"], bits: Float[Tensor, "input bit"]
) -> Float[Tensor, "input neuron"]:
    """The neurons before the rotation."""
    return (bits @ sets.float().T - 1).relu()


def ands(bits: Float[Tensor, "input bit"], pairs: Sequence[Pair]) -> Float[Tensor, "input pair"]:
    """The ANDs of some pairs of bits."""
    first, second = torch.tensor(list(pairs)).T
    return bits[:, first] * bits[:, second]


def independent_bits(count: int, generator: torch.Generator) -> Float[Tensor, "input bit"]:
    """Sparse bits of which none depends on another."""
    return (torch.rand(count, BUNDLES.n_bits, generator=generator) < _INDEPENDENT).float()


def _read_out(sets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights and offsets that read every AND best, by ridge regression."""
    bits = independent_bits(_N_DATA, generator)
    neurons, targets = hidden(sets, bits), ands(bits, PAIRS)
    mean, centre = neurons.mean(0), targets.mean(0)
    centred = (neurons - mean).double()
    gram = centred.T @ centred / len(bits) + _RIDGE * torch.eye(N_NEURONS).double()
    moments = centred.T @ (targets - centre).double() / len(bits)
    weights = torch.linalg.solve(gram, moments).T.float()
    return weights, centre - weights @ mean


def draw_network(seed: int) -> UniversalAnd:
    """The construction of a seed."""

    def generator(purpose: str) -> torch.Generator:
        return derived(seed, "T8.universal", purpose)

    sets = torch.rand(N_NEURONS, BUNDLES.n_bits, generator=generator("sets")) < _CONNECTED
    weights, offsets = _read_out(sets, generator("read-out"))
    normal = torch.randn(N_NEURONS, N_NEURONS, generator=generator("rotation"))
    apart = [pair for pair in PAIRS if pair[0] // 2 != pair[1] // 2]
    order = torch.randperm(len(apart), generator=generator("reads")).tolist()
    kinds = torch.randint(2, (2, N_READ), generator=generator("outputs")).tolist()
    return UniversalAnd(
        sets=sets,
        weights=weights,
        offsets=offsets,
        rotation=torch.linalg.qr(normal)[0],
        reads=tuple(
            tuple(apart[i] for i in order[start : start + N_READ]) for start in (0, N_READ)
        ),
        # An AND of ANDs of sparse bits would hardly ever be on.
        outputs=tuple(
            tuple(
                Gate("or" if kind else "xor", wire, (wire + 1) % N_READ)
                for wire, kind in enumerate(each)
            )
            for each in kinds
        ),
    )


def build(seed: int) -> Testbed:
    """T8.universal."""
    network = draw_network(seed)
    trunk = nn.Sequential(
        affine(network.sets.float(), -torch.ones(N_NEURONS)), nn.ReLU(), affine(network.rotation)
    )
    data = BUNDLES.draw(_N_DATA, derived(seed, "T8.universal", "data"))
    interventional = independent_bits(
        _N_INTERVENTIONAL, derived(seed, "T8.universal", "interventional")
    )
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T8.universal {name}", trunk, _reader(network, number)),
            data=data,
            interventional=interventional,
            activations_truth=BUNDLES.truth(),
            model_truth=_truth(network, network.reads[number]),
        )
        for number, name in enumerate(("ANDs A", "ANDs B"))
    )
    outputs = dict(zip((arm.name for arm in arms), network.outputs, strict=True))
    return Testbed(
        name="T8.universal",
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=lambda arm, decomposition: gate_scores(arm, decomposition, outputs[arm.name]),
        known=lambda: _known(network, arms[0]),
        draw=lambda decompositions: _draw(arms, decompositions),
    )


def _reader(network: UniversalAnd, number: int) -> nn.Sequential:
    clip_in, clip_out = network.corrected(network.reads[number])
    gate_in, gate_out = gadget_layer(network.outputs[number], N_READ, keep=False)
    return nn.Sequential(clip_in, nn.ReLU(), fused(clip_out, gate_in), nn.ReLU(), gate_out)


def _truth(network: UniversalAnd, pairs: Sequence[Pair]) -> Truth:
    weights = network.weights[[PAIRS.index(pair) for pair in pairs]]
    return Truth(
        names=tuple(f"bit {j} AND bit {k}" for j, k in pairs),
        scalars=lambda bits: ands(bits, pairs),
        covectors=weights @ network.rotation.T,
    )


def and_error_rate(
    network: UniversalAnd,
    bits: Float[Tensor, "input bit"],
    activations: Float[Tensor, "input neuron"],
) -> float:
    """Share of wrong ones among all corrected ANDs of two bits."""
    clip_in, clip_out = network.corrected(PAIRS)
    found = clip_out(clip_in(activations).relu())
    return float(((found - ands(bits, PAIRS)).abs() > 0.5).float().mean())


def _known(network: UniversalAnd, arm: Arm) -> Sequence[KnownNumber]:
    eye = torch.eye(BUNDLES.n_bits)
    two = activations_at(arm.subject, arm.site, torch.stack([eye[j] + eye[k] for j, k in PAIRS]))
    first, second = torch.tensor(PAIRS).T
    both = (network.sets[:, first] & network.sets[:, second]).float().T
    return (
        KnownNumber(
            name="largest deviation of a neuron from the AND of its set, two bits on",
            expected=0.0,
            tolerance=1e-4,
            measured=float((two @ network.rotation - both).abs().max()),
            source="derived: ReLU(a + b - 1) is the AND of two bits",
        ),
        KnownNumber(
            name="largest activation while a single bit is on",
            expected=0.0,
            tolerance=1e-4,
            measured=float(activations_at(arm.subject, arm.site, eye).abs().max()),
            source="derived: ReLU(a - 1) is 0 for a bit",
        ),
        KnownNumber(
            name="share of wrong ANDs among all 276, independent bits",
            expected=0.0,
            tolerance=STATED_ERROR_RATE,
            measured=and_error_rate(network, arm.interventional, arm.interventional_activations),
            source="stated error rate of this construction (ours)",
        ),
    )


def _draw(arms: Sequence[Arm], decompositions: Mapping[str, Decomposition]) -> Sequence[Drawing]:
    truths = {
        "ANDs that are read": arms[0].model_truth,
        "ANDs that are not": arms[1].model_truth,
        "bundles of the data": arms[0].activations_truth,
    }
    return found_grid("ANDs and bundles", arms[0], truths, decompositions)


KIND = TestbedKind(
    name="T8.universal",
    title="Boolean circuit, universal AND",
    claim="A layer holds more ANDs than it has neurons; a dictionary of its activations finds the "
    "pairs of bits that come together in the data, not the pairs that are read.",
    build=build,
    references=("hanni2024",),
)
