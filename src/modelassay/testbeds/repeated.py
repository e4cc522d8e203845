"""An absolute-value network on data in which one input is repeated: a control.

Construction (after Olah 2025): x in R^12, each coordinate U[-1, 1] with chance 0.15, else 0; but
30 % of the data is one and the same input x*, of which three coordinates are on. The site is Q x,
Q a random rotation, and the reader computes absolute values by pairs of ReLUs,

    arm "coordinates":      y_i = ReLU(u_i) + ReLU(-u_i),    u = x
    arm "sums":             the same of  u = (x_i + x_j, x_i - x_j) / sqrt(2)  for pairs (i, j).

- Model's truth: ReLU(u_i) and ReLU(-u_i) of all i. The network treats x* like any other input.
- Activations' truth: whether the input is the repeated one, on its own three coordinates.
- Interventional: every coordinate shuffled by itself, so that it keeps its distribution, spike at
  x*'s value included, and the three of x* meet by chance.

Prediction: a sparse dictionary spends a latent on x*: one active latent in place of three.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.boolean_circuits import affine
from modelassay.testbeds.found import found_grid
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.scores import cosine
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

D, N_ON = 12, 3
REPEATED = 0.3
"""Share of the data that is the repeated input (ours)."""
_ON = 0.15
_N_DATA, _N_INTERVENTIONAL = 20_000, 6000
_SAME = 1e-6
# k: the nearest to the mean number of coordinates that are on, 0.7 * 1.8 + 0.3 * 3 = 2.2.
_SIZE = Size(width=48, k=2, tokens=400_000, batch_tokens=512)


def repeated_input(seed: int) -> Float[Tensor, " d"]:
    """x*: three coordinates of size 0.5 to 1 and random sign."""
    generator = derived(seed, "T10.repeated", "input")
    where = torch.randperm(D, generator=generator)[:N_ON]
    size = 0.5 + 0.5 * torch.rand(N_ON, generator=generator)
    sign = torch.randint(2, (N_ON,), generator=generator) * 2.0 - 1
    return torch.zeros(D).scatter(0, where, size * sign)


def draw_data(
    repeated: Float[Tensor, " d"], count: int, generator: torch.Generator
) -> Float[Tensor, "input d"]:
    """Sparse inputs, some of which are the repeated one."""
    value = torch.rand(count, D, generator=generator) * 2 - 1
    sparse = value * (torch.rand(count, D, generator=generator) < _ON)
    chosen = torch.rand(count, 1, generator=generator) < REPEATED
    return torch.where(chosen, repeated, sparse)


def shuffled(
    inputs: Float[Tensor, "input d"], generator: torch.Generator
) -> Float[Tensor, "input d"]:
    """Every coordinate in an order of its own."""
    order = torch.rand(inputs.shape, generator=generator).argsort(0)
    return inputs.gather(0, order)


def build(seed: int) -> Testbed:
    """T10.repeated."""

    def generator(purpose: str) -> torch.Generator:
        return derived(seed, "T10.repeated", purpose)

    repeated = repeated_input(seed)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=generator("rotation")))[0]
    half = torch.eye(D // 2)
    sums = torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)]) / 2**0.5
    trunk = affine(rotation)
    data = draw_data(repeated, _N_DATA, generator("data"))
    interventional = shuffled(
        draw_data(repeated, _N_INTERVENTIONAL, generator("interventional")), generator("shuffle")
    )
    memory = Truth(
        names=("the repeated input",),
        scalars=lambda inputs: _is_repeated(inputs, repeated),
        covectors=torch.nn.functional.normalize(rotation @ repeated, dim=0)[None],
    )
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T10.repeated {name}", trunk, _reader(rows @ rotation.T)),
            data=data,
            interventional=interventional,
            activations_truth=memory,
            model_truth=_halves(rows, rotation),
        )
        for name, rows in (("coordinates", torch.eye(D)), ("sums", sums))
    )
    return Testbed(
        name="T10.repeated",
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=lambda _arm, decomposition: memorised(
            decomposition, (rotation @ repeated)[None]
        ),
        known=lambda: _known(arms, data),
        draw=lambda decompositions: found_grid(
            "Halves of coordinates and the repeated input",
            arms[0],
            {"what is read": arms[0].model_truth, "what is repeated": memory},
            decompositions,
        ),
    )


def memorised(
    decomposition: Decomposition, activation: Float[Tensor, "1 d"]
) -> Mapping[str, float]:
    """How far one latent stands for the repeated input alone.

    ``memory_cosine``: cosine of the latent that is strongest on it with its activation;
    ``memory_l0``: latents that fire on it; three features are on.
    """
    values = decomposition.encode(activation).dense()[0]
    strongest = int((values.abs() * decomposition.directions.norm(dim=1)).argmax())
    direction = decomposition.directions[strongest][None]
    return {
        "memory_cosine": float(cosine(direction, activation)),
        "memory_l0": float((values != 0).sum()),
    }


def _is_repeated(inputs: Tensor, repeated: Tensor) -> Tensor:
    on = repeated != 0
    same = (inputs[:, on] - repeated[on]).abs() < _SAME
    return same.all(1, keepdim=True).float()


def _halves(rows: Tensor, rotation: Tensor) -> Truth:
    signed = torch.cat([rows, -rows])
    return Truth(
        names=tuple(f"ReLU({sign}u{i})" for sign in ("", "-") for i in range(len(rows))),
        scalars=lambda inputs: (inputs @ signed.T).relu(),
        covectors=signed @ rotation.T,
    )


def _reader(read: Tensor) -> nn.Sequential:
    add = torch.cat([torch.eye(len(read)), torch.eye(len(read))], 1)
    return nn.Sequential(affine(torch.cat([read, -read])), nn.ReLU(), affine(add))


def _known(arms: Sequence[Arm], data: Tensor) -> Sequence[KnownNumber]:
    return (
        KnownNumber(
            name="largest deviation of the output from |x|",
            expected=0.0,
            tolerance=1e-5,
            measured=float((arms[0].output() - data.abs()).abs().max()),
            source="derived: |x| = ReLU(x) + ReLU(-x)",
        ),
        KnownNumber(
            name="share of interventional inputs on which the three coordinates of x* meet",
            expected=REPEATED**N_ON,
            # Four standard deviations of a share of 6,000 inputs.
            tolerance=4 * (REPEATED**N_ON / _N_INTERVENTIONAL) ** 0.5,
            measured=float(arms[0].activations_truth.values(arms[0].interventional).mean()),
            source="derived: independent coordinates",
        ),
    )


KIND = TestbedKind(
    name="T10.repeated",
    title="Absolute values with a repeated input",
    claim="A sparse dictionary spends a latent on an input that the data repeats, though the "
    "network treats it like any other.",
    build=build,
)
